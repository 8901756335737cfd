"""House rules that no compiler knows. Needs Python only; see check() for what they are."""
import re

# The public ABI says thread and state function by function, in the tags of chimera/expert.h.
ABI = "plugin-api/include/"
# Code that stands for what others write: it knows the public headers alone.
FOREIGN = ("plugin-api/template/", "plugin-api/tests/", "tests/plugins/")
# The one place for the standard classes that clang's analysis does not know.
MUTEX = ("base/threads/mutex.h", "base/threads/mutex_test.cc")

PARENT_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"][^">]*\.\./', re.M)
BARE_MUTEX = re.compile(r"\bstd::(?:\w+_)*(?:mutex|lock_guard|unique_lock|scoped_lock|shared_lock|condition_variable\w*)\b")
GUARD = re.compile(r"^#(pragma once|ifndef \w+_H_)$", re.M)


def head(text):
    """The comment that a file begins with."""
    block = re.match(r"(?:\s*//[^\n]*\n)+|\s*/\*.*?\*/", text, re.S)
    return block.group(0) if block else ""


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def check_file(name, text):
    """The findings in one source file, each "file:line: what was found (expected …)"."""
    findings = []

    def add(match, message):
        findings.append(f"{name}:{line_of(text, match.start())}: {message}")

    if not name.startswith(FOREIGN):
        for match in PARENT_INCLUDE.finditer(text):
            add(match, "include of a parent folder (expected the path from the root of the tree)")
    if not name.startswith(FOREIGN) and name not in MUTEX:
        for match in BARE_MUTEX.finditer(text):
            add(match, f"found {match.group(0)} (expected the annotated classes of {MUTEX[0]})")
    if name.endswith(".h") and not name.startswith(("tests/", *FOREIGN)):
        if not GUARD.search(text):
            findings.append(f"{name}:1: found no include guard (expected #pragma once)")
        if not name.startswith(ABI) and "Thread safety:" not in head(text):
            findings.append(f'{name}:1: found no word on threads (expected "Thread safety: …" at the '
                            "end of the first comment)")
    return findings


def check(root, names):
    """The findings in all of `names`, paths from `root`."""
    findings = []
    for name in names:
        findings += check_file(name, (root / name).read_text(errors="replace"))
    return findings
