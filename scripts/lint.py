"""The inside of scripts/lint.

A file that was found clean is not looked at again while it, the headers it includes, the compiler's
options, the versions of the tools and .clang-tidy are what they were: .cache/lint holds one empty
file per verdict, named by the digest of all these. So a second run takes seconds, and a change costs
the files that see it. (Headers of packages count by the tools' versions only.)
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

import lint_rules

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build-lint"
CACHE = ROOT / ".cache" / "lint"
CLANG, TIDY, FORMAT = "clang++-14", "clang-tidy-14", "clang-format-14"
THREAD_FLAGS = ["-Wthread-safety", "-Werror=thread-safety"]
ANNOTATIONS = "base/threads/thread_annotations.h"
MONTH_S = 30 * 86400


def run(command, **options):
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, **options)


def tracked(*patterns):
    """Tracked and new files, as paths from the root."""
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns], check=True)
    return sorted(name for name in set(listed.stdout.splitlines()) if (ROOT / name).is_file())


class Units:
    """The compilations of the tree as Clang sees them, from a build directory that is only configured."""

    def __init__(self):
        configured = run(["cmake", "--preset", "lint"])
        if configured.returncode != 0:
            sys.exit(f"lint: cmake --preset lint failed\n{configured.stdout}{configured.stderr}")
        self.options = {}  # path from the root -> arguments after the compiler's name
        for entry in json.loads((BUILD / "compile_commands.json").read_text()):
            path = os.path.relpath(os.path.realpath(entry["file"]), ROOT)
            if not path.startswith(("..", "build", *lint_rules.FOREIGN)):
                self.options.setdefault(path, self._options(entry["command"]))
        self._includes = {}
        self._digests = {}
        version = run([CLANG, "--version"]).stdout + run([TIDY, "--version"]).stdout
        self.tools = version + (ROOT / ".clang-tidy").read_text()

    @staticmethod
    def _options(command):
        words = shlex.split(command)
        words = words[next(i for i, w in enumerate(words) if "clang" in os.path.basename(w)) + 1:]
        kept, skip = [], False
        for word in words:
            if skip or word in ("-o", "-c"):
                skip = word in ("-o", "-c") and not skip
                continue
            kept.append(word)
        return kept

    def closure(self, path):
        """The file and every file of the tree that it includes, however indirectly."""
        folders = [w[2:] for w in self.options[path] if w.startswith("-I")]
        seen, todo = set(), [path]
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            for included in self._included_by(name):
                for folder in [str(ROOT / os.path.dirname(name)), *folders]:
                    found = os.path.join(folder, included)
                    if os.path.isfile(found):
                        found = os.path.relpath(os.path.realpath(found), ROOT)
                        if not found.startswith(".."):
                            todo.append(found)
                        break
        return sorted(seen)

    def _included_by(self, name):
        if name not in self._includes:
            text = (ROOT / name).read_text(errors="replace")
            self._includes[name] = re.findall(r'^\s*#\s*include\s*[<"]([^">]+)[">]', text, re.M)
        return self._includes[name]

    def _digest(self, name):
        if name not in self._digests:
            self._digests[name] = hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
        return self._digests[name]

    def key(self, kind, path):
        """Names the verdict `kind` on the file as it is now."""
        parts = [kind, self.tools, " ".join(self.options[path]).replace(str(ROOT), ".")]
        parts += [f"{name} {self._digest(name)}" for name in self.closure(path)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def known_clean(key):
    verdict = CACHE / key
    if not verdict.exists():
        return False
    os.utime(verdict)
    return True


def remember_clean(key):
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / key).touch()


def forget_old():
    for verdict in CACHE.glob("*"):
        if time.time() - verdict.stat().st_mtime > MONTH_S:
            verdict.unlink()


def check_format(files):
    found = run([FORMAT, "--dry-run", "-Werror", *files])
    return [found.stderr.strip()] if found.returncode != 0 else []


def thread_safety(units, path):
    found = run([CLANG, *units.options[path], *THREAD_FLAGS, "-fsyntax-only", path])
    return found.stderr.strip() if found.returncode != 0 else ""


def tidy(units, path):
    extra = [f"--extra-arg={flag}" for flag in THREAD_FLAGS]
    found = run([TIDY, "--quiet", f"-p={BUILD}", *extra, path])
    if found.returncode == 0:
        return ""
    return (found.stdout + "\n".join(l for l in found.stderr.splitlines() if "error" in l)).strip()


def check_units(kind, check, units, paths, jobs, until):
    """Runs `check` on what is not known to be clean. The findings, and how many were left for want of time."""
    stale = [(path, key) for path in paths if not known_clean(key := units.key(kind, path))]
    print(f"{kind}: {len(paths)} files, {len(stale)} changed since they were found clean", flush=True)
    findings, left = [], 0

    def one(item):
        if time.monotonic() > until:
            return None
        return check(units, item[0])

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for (path, key), text in zip(stale, pool.map(one, stale)):
            if text is None:
                left += 1
            elif text:
                findings.append(text)
                print(text, flush=True)
            else:
                remember_clean(key)
    return findings, left


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/lint", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="House rules, format, thread safety and clang-tidy over the whole tree.\n"
        "What was found clean is remembered in .cache/lint.")
    parser.add_argument("files", nargs="*", help="only these sources (rules and format: all)")
    parser.add_argument("--rules", action="store_true", help="only the house rules; needs no compiler")
    parser.add_argument("--threads", action="store_true", help="no clang-tidy: rules, format, thread safety")
    parser.add_argument("--changed", metavar="COMMIT", nargs="?", const="HEAD",
                        help="only sources that differ from COMMIT (HEAD), or include what does")
    parser.add_argument("--minutes", type=float, default=1e6,
                        help="stop clang-tidy after so long; the next run goes on from there")
    return parser.parse_args()


def wanted(units, options):
    paths = sorted(units.options)
    if options.files:
        paths = [p for p in paths if p in {os.path.normpath(f) for f in options.files}]
    if options.changed:
        changed = set(run(["git", "diff", "--name-only", options.changed], check=True).stdout.split())
        changed |= set(run(["git", "ls-files", "--others", "--exclude-standard"]).stdout.split())
        paths = [p for p in paths if changed.intersection(units.closure(p))]
    # What changed last comes first: there the findings are.
    return sorted(paths, key=lambda p: -(ROOT / p).stat().st_mtime)


def main():
    options = parse()
    began = time.monotonic()
    sources = tracked("*.h", "*.cc", "*.c")
    findings = lint_rules.check(ROOT, sources)
    print("\n".join([f"rules: {len(sources)} files", *findings]), flush=True)
    if options.rules:
        return 1 if findings else 0
    wrong_format = check_format(sources)
    print("\n".join([f"format: {len(sources)} files", *wrong_format]), flush=True)
    findings += wrong_format

    units = Units()
    jobs = int(os.environ.get("CHIMERA_JOBS", os.cpu_count()))
    paths = wanted(units, options)
    annotated = [p for p in paths if ANNOTATIONS in units.closure(p)]
    left = 0
    if options.threads:
        findings += check_units("thread safety", thread_safety, units, annotated, jobs, float("inf"))[0]
    else:
        more, left = check_units("clang-tidy", tidy, units, paths, jobs, began + 60 * options.minutes)
        findings += more
    forget_old()
    if left:
        print(f"lint: time is up; {left} files are left for the next run")
    print(f"lint: {len(findings)} findings in {time.monotonic() - began:.0f} s")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
