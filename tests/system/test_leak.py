"""Load/unload cycles leave memory, descriptors, mappings and threads as they were.

Short form 150 cycles, --long 1,000; at most +8 MiB resident. The negative control loads copies
and never unloads them: the same measure must notice. A sanitizer keeps freed memory and shadow
pages of its own, so in such a build only descriptors and threads are compared.

Short requests leave it as it was as well: a million of them (--long) within 1 %, 20,000 within 3 %.
"""
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import BIN, GOLDEN, LONG, MEASURES_MEMORY, Daemon, split

CYCLES = 1000 if LONG else 150
REQUESTS = 1_000_000 if LONG else 20_000
WARM_UP = 20
ALLOWED_KIB = 8 * 1024


class LoadUnloadCycles(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = Path(tempfile.mkdtemp(prefix="chimera-leak-"))
        cls.parts = split(GOLDEN / "flex_olmo_f32", cls.scratch, legal="4-6")

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.scratch, ignore_errors=True)

    def growth(self, daemon: Daemon, cycle, cycles: int, allowed: dict[str, int]) -> dict[str, int]:
        for i in range(WARM_UP):
            cycle(i)
        numbers = itertools.count(WARM_UP)
        return daemon.growth(lambda: [cycle(next(numbers)) for _ in range(cycles)], allowed)

    def test_flat(self) -> None:
        module = self.parts / "modules" / "legal"
        allowed = {"fds": 0, "threads": 0}
        if MEASURES_MEMORY:
            allowed |= {"rss_kib": ALLOWED_KIB, "maps": 0}
        with Daemon(self.parts / "backbone", one_heap=True) as daemon, daemon.client() as client:
            def cycle(_: int) -> None:
                client.load(module)
                client.complete(tokens=[1, 2, 3], max_tokens=2, temperature=0)
                client.unload("legal")
            grown = self.growth(daemon, cycle, CYCLES, allowed)
        print(f"{CYCLES} cycles: {grown}")
        for key, bound in allowed.items():
            self.assertLessEqual(grown[key], bound, key)

    def test_negative_control_is_noticed(self) -> None:
        """Modules that stay loaded must exceed the same bound, scaled to their number."""
        source = self.parts / "modules" / "legal"
        weights = (source / "weights.safetensors").stat().st_size
        kept = 40
        with Daemon(self.parts / "backbone", one_heap=True) as daemon, daemon.client() as client:
            def keep(i: int) -> None:
                copy = self.scratch / f"copy-{i}"
                shutil.copytree(source, copy)
                manifest = copy / "module.yaml"
                manifest.write_text(manifest.read_text().replace('name: "legal"', f"name: m{i}"))
                client.load(copy)
            grown = self.growth(daemon, keep, kept, {})
            self.assertEqual(len(client.modules()), WARM_UP + kept)
        print(f"negative control, {kept} modules of {weights} bytes: {grown}")
        self.assertGreater(grown["rss_kib"], 0.5 * kept * weights / 1024)

    @unittest.skipUnless(MEASURES_MEMORY, "a sanitizer keeps freed memory")
    def test_short_requests_leave_memory_flat(self) -> None:
        done = subprocess.run([BIN / "chimera-bench", "capacity", "--lasting", "--json", "--requests",
                               str(REQUESTS), "--backbone", self.parts / "backbone", "--precision", "f32"],
                              capture_output=True, text=True,
                              env={**os.environ, "MALLOC_ARENA_MAX": "1"})  # of its daemon too: one_heap
        self.assertIn(done.returncode, (0, 1), done.stderr)
        lasting = json.loads(done.stdout)["lasting"]
        print(f"{REQUESTS} requests: {lasting['rss_bytes'][0]} bytes, in the end {lasting['growth']} times")
        self.assertEqual(lasting["failed"], 0)
        self.assertGreaterEqual(lasting["requests"], REQUESTS)
        # A heap is full when as much of it was in use at once as ever will be: of few requests it may
        # not have been in the first tenth.
        self.assertLessEqual(lasting["growth"], 1.01 if LONG else 1.03)


if __name__ == "__main__":
    unittest.main()
