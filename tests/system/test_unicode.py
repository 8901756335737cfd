"""The tables of text/unicode_data.cc are what their generator writes, and agree with Python's own.

The first needs node and the packages that scripts/unicode_tables.mjs names, under the folder that
CHIMERA_UNICODE_PACKAGES says or ./node_modules.
"""
import os
import pathlib
import re
import shutil
import subprocess
import unicodedata
import unittest

from harness import SOURCE

TABLES = SOURCE / "text" / "unicode_data.cc"
PACKAGES = pathlib.Path(os.environ.get("CHIMERA_UNICODE_PACKAGES", SOURCE))
VERSIONS = ("8.0.0", "9.0.0", "14.0.0", "15.0.0", "16.0.0", "17.0.0")
INSTALLED = all((PACKAGES / "node_modules/@unicode" / f"unicode-{version}").is_dir() for version in VERSIONS)

# Punctuation of 8.0 and marks of 9.0 that later versions call something else.
RECATEGORIZED = (0x166D, 0x111C9, 0x1CF2, 0x1CF3)


def ranges(name: str) -> set[int]:
    body = re.search(rf"CodePointRange {name}\[\] = {{(.*?)\n}};", TABLES.read_text(), re.S)
    assert body is not None, name
    found = re.findall(r"\{0x([0-9A-F]+), 0x([0-9A-F]+)\}", body[1])
    return {c for first, last in found for c in range(int(first, 16), int(last, 16) + 1)}


class UnicodeTables(unittest.TestCase):
    @unittest.skipUnless(INSTALLED and shutil.which("node"), f"no node or no @unicode packages in {PACKAGES}")
    def test_the_generator_writes_the_same_bytes(self) -> None:
        written = subprocess.run(["node", SOURCE / "scripts/unicode_tables.mjs", PACKAGES], check=True,
                                 capture_output=True).stdout
        self.assertEqual(written, TABLES.read_bytes())

    def test_python_agrees_about_the_characters_that_it_knows(self) -> None:
        known = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
        self.assertGreater(len(known), 280_000)
        numeric, marks, punctuation = ranges("kNumeric"), ranges("kMarks"), ranges("kPunctuation")
        old = unicodedata.ucd_3_2_0  # Python has these tables for the domain names of the net
        for c in known:
            category = unicodedata.category(chr(c))
            self.assertEqual(c in numeric, category[0] == "N", hex(c))
            if c not in RECATEGORIZED:
                self.assertTrue(c not in marks or category[0] == "M", hex(c))
                self.assertTrue(c not in punctuation or category[0] == "P", hex(c))
            if old.category(chr(c))[0] == category[0] == "M":
                self.assertIn(c, marks, hex(c))
            if old.category(chr(c))[0] == category[0] == "P":
                self.assertIn(c, punctuation, hex(c))

    @unittest.skipUnless(unicodedata.unidata_version == "14.0.0", "Python's tables are not those of PCRE2 10.42")
    def test_what_is_called_changed_is_new_to_the_library(self) -> None:
        """PCRE2 of Debian 12 and Python 3.11 have the same version: what was added was unassigned."""
        added = set().union(*(ranges(name) for name in ("kL", "kM", "kN", "kP", "kS", "kCf")))
        self.assertGreater(len(added), 9_400)
        for c in added - {0x1171E}:
            self.assertEqual(unicodedata.category(chr(c)), "Cn", hex(c))
        self.assertTrue(added <= ranges("kChanged"))


if __name__ == "__main__":
    unittest.main()
