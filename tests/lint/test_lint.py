"""The house rules hold over the tree, and each rule notices a file made wrong on purpose."""
import contextlib
import io
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import lint  # noqa: E402
import lint_rules  # noqa: E402

GOOD_HEADER = "// A thing.\n//\n// Thread safety: a value.\n#pragma once\n"
CLANG = shutil.which("clang++-14")

COUNTER = """
#include "base/threads/mutex.h"
struct Counter {
  void add() { %s ++count; }
  chimera::Mutex mutex;
  int count GUARDED_BY(mutex) = 0;
};
"""
LOOP = """
#include "base/threads/mutex.h"
struct Loop {
  void run() { %s step(); }
  void step() REQUIRES(thread) { ++steps; }
  chimera::ThreadRole thread;
  int steps GUARDED_BY(thread) = 0;
};
"""


def sources():
    names = []
    for room in ["base", "compute", "text", "backbone", "experts", "router", "daemon", "clients",
                 "plugin-api", "bench", "tests"]:
        names += [p for p in (ROOT / room).rglob("*") if p.suffix in (".h", ".cc", ".c") and p.is_file()]
    return sorted(str(p.relative_to(ROOT)) for p in names)


class Rules(unittest.TestCase):
    def findings(self, name, text):
        return lint_rules.check_file(name, text)

    def test_the_tree_keeps_them(self):
        names = sources()
        self.assertGreater(len(names), 500)
        self.assertEqual(lint_rules.check(ROOT, names), [])

    def test_a_good_header_has_no_finding(self):
        self.assertEqual(self.findings("base/thing.h", GOOD_HEADER), [])

    def test_a_header_without_a_word_on_threads_is_found(self):
        found = self.findings("base/thing.h", "// A thing.\n#pragma once\n// Thread safety: too late.\n")
        self.assertEqual(len(found), 1)
        self.assertIn("base/thing.h:1: found no word on threads", found[0])

    def test_a_header_without_include_guard_is_found(self):
        found = self.findings("base/thing.h", "// Thread safety: a value.\n")
        self.assertEqual([f for f in found if "include guard" in f], found)
        self.assertEqual(len(found), 1)

    def test_an_include_of_a_parent_folder_is_found_with_its_line(self):
        found = self.findings("base/thing.cc", '#include <map>\n#include "../base/thing.h"\n')
        self.assertEqual(len(found), 1)
        self.assertTrue(found[0].startswith("base/thing.cc:2: include of a parent folder"), found)

    def test_bare_mutexes_are_found(self):
        for bare in ["std::mutex m;", "std::lock_guard lock(m);", "std::unique_lock lock(m);",
                     "std::condition_variable c;", "std::shared_mutex m;", "std::recursive_mutex m;",
                     "std::scoped_lock lock(m);", "std::condition_variable_any c;"]:
            self.assertEqual(len(self.findings("base/thing.cc", bare)), 1, bare)
        self.assertEqual(self.findings("base/thing.cc", "Mutex m; MutexLock lock(m);"), [])


class Cache(unittest.TestCase):
    """A verdict stands while the file and all that it includes stay as they are."""

    def setUp(self):
        self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(unittest.mock.patch.object(lint, "ROOT", self.root))
        self.enterContext(unittest.mock.patch.object(lint, "CACHE", self.root / ".cache"))
        (self.root / "room").mkdir()
        self.write("room/a.cc", '#include "room/b.h"\n#include <vector>\n')
        self.write("room/b.h", '#include "room/c.h"\n')
        self.write("room/c.h", "int c();\n")
        self.write("room/other.h", "")

    def write(self, name, text):
        (self.root / name).write_text(text)

    def units(self, tools="clang 14", options=()):
        units = lint.Units.__new__(lint.Units)
        units.options = {"room/a.cc": [f"-I{self.root}", *options]}
        units.tools, units._includes, units._digests = tools, {}, {}
        return units

    def key(self, **options):
        return self.units(**options).key("clang-tidy", "room/a.cc")

    def test_a_file_sees_what_its_headers_include(self):
        self.assertEqual(self.units().closure("room/a.cc"), ["room/a.cc", "room/b.h", "room/c.h"])

    def test_a_verdict_ends_with_any_change_that_the_file_sees(self):
        before = self.key()
        self.assertEqual(self.key(), before)
        self.write("room/other.h", "int other();\n")
        self.assertEqual(self.key(), before)
        self.write("room/c.h", "long c();\n")
        self.assertNotEqual(self.key(), before)

    def test_a_verdict_ends_with_another_tool_or_option(self):
        self.assertNotEqual(self.key(tools="clang 15"), self.key())
        self.assertNotEqual(self.key(options=["-DNDEBUG"]), self.key())

    def test_only_clean_files_are_remembered(self):
        verdicts = {"room/a.cc": "room/a.cc:1: error: found"}
        check = lambda units, path: verdicts[path]  # noqa: E731
        with contextlib.redirect_stdout(io.StringIO()):
            for finding in ["room/a.cc:1: error: found", ""]:
                verdicts["room/a.cc"] = finding
                found, _ = lint.check_units("test", check, self.units(), ["room/a.cc"], 1, float("inf"))
                self.assertEqual(found, [finding] if finding else [])
            verdicts["room/a.cc"] = "never asked again"
            found, _ = lint.check_units("test", check, self.units(), ["room/a.cc"], 1, float("inf"))
            self.assertEqual(found, [])

    def test_when_time_is_up_files_are_left_for_the_next_run(self):
        with contextlib.redirect_stdout(io.StringIO()):
            found, left = lint.check_units("test", lambda *_: self.fail(), self.units(), ["room/a.cc"], 1, 0.0)
        self.assertEqual((found, left), ([], 1))
        self.assertFalse(lint.known_clean(self.units().key("test", "room/a.cc")))


@unittest.skipUnless(CLANG, "clang++-14 is not installed; scripts/lint installs it")
class ThreadSafety(unittest.TestCase):
    def compiles(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".cc") as file:
            file.write(text)
            file.flush()
            done = subprocess.run([CLANG, "-std=c++20", "-fsyntax-only", "-Wthread-safety",
                                   "-Werror=thread-safety", f"-I{ROOT}", file.name],
                                  capture_output=True, text=True, timeout=60)
        return done.returncode == 0

    def test_data_without_its_mutex_is_refused(self):
        self.assertTrue(self.compiles(COUNTER % "const chimera::MutexLock lock(mutex);"))
        self.assertFalse(self.compiles(COUNTER % ""))

    def test_data_of_another_thread_is_refused(self):
        self.assertTrue(self.compiles(LOOP % "const chimera::ThreadRoleScope role(thread);"))
        self.assertFalse(self.compiles(LOOP % ""))


if __name__ == "__main__":
    unittest.main()
