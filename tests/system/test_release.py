"""A module that was present at start is let go like any other: its row, its memory, its process.

A daemon begins with modules in two ways, by its deployment and by the state of an earlier run, and
a module leaves in four: unload, revoke, swap, apply. Each combination is tried for each kind of
module, because each kind holds something else: weights memory, an isolated library a process, an
in-process one an image.
"""
import functools
import pathlib
import shutil
import tempfile
import time
import unittest
from typing import Callable

import harness
from harness import BUILD, MEASURES_MEMORY, SLOW, SOURCE

# Libraries here ask to run inside of it.
Daemon = functools.partial(harness.Daemon, in_process=True)

BACKBONE = SOURCE / "experts" / "backbone"
LEGAL = SOURCE / "experts" / "legal"
ISOLATED = BUILD / "modules" / "finance"
IN_PROCESS = BUILD / "modules" / "finance-in-process"
WEIGHTS_KIB = (LEGAL / "weights.safetensors").stat().st_size // 1024


def unload(client, name: str, _: pathlib.Path) -> None:
    client.unload(name)


def revoke(client, name: str, _: pathlib.Path) -> None:
    client.revoke(name)


def swap(client, _: str, copy: pathlib.Path) -> None:
    client.load(copy)


def apply(client, _: str, copy: pathlib.Path) -> None:
    client.apply({"modules": [{"path": str(copy)}]})


LEAVES = [unload, revoke]
REPLACES = [swap, apply]


def hosts(daemon: harness.Daemon) -> set[int]:
    """Processes of plugins that the daemon started and that still run."""
    found = set()
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it ended meanwhile
            continue
        state, parent = text[text.rindex(")") + 2:].split()[:2]
        if int(parent) == daemon.pid and state != "Z":
            found.add(int(stat.parent.name))
    return found


def images(daemon: harness.Daemon) -> set[str]:
    """Images of libraries in the daemon, by inode."""
    maps = pathlib.Path(f"/proc/{daemon.pid}/maps").read_text().splitlines()
    return {line.split()[4] for line in maps if "/memfd:chimera-finance" in line}


class Release(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="chimera-release-"))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)

    def daemon(self, begin: str, module: pathlib.Path) -> harness.Daemon:
        """One that has `module` from its start on."""
        if begin == "deployment":
            return Daemon(BACKBONE, modules=[{"path": str(module)}])
        daemon = Daemon(BACKBONE)
        with daemon.client() as client:
            client.load(module)
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        return daemon

    def every_way(self, module: pathlib.Path, ways: list[Callable],
                  check: Callable[[harness.Daemon, Callable], None]) -> None:
        copy = self.scratch / "copy"
        shutil.copytree(module, copy)
        for begin in ("deployment", "state"):
            for way in ways:
                with self.subTest(begin=begin, way=way.__name__):
                    with self.daemon(begin, module) as daemon, daemon.client() as client:
                        rows = client.modules()
                        self.assertEqual([row["state"] for row in rows], ["active"])
                        name = rows[0]["name"]
                        # In use once, so that every part of the daemon has seen it.
                        client.complete(tokens=[1, 2, 3], max_tokens=4, temperature=0)

                        def go() -> None:
                            way(client, name, copy)
                            left = [] if way in LEAVES else ["active"]
                            self.assertEqual([row["state"] for row in client.modules()], left)
                            self.assertEqual(len(client.info()["modules"]), len(left))
                        check(daemon, go)

    def test_weights(self) -> None:
        def check(daemon: harness.Daemon, go: Callable) -> None:
            before = daemon.resources()["rss_kib"]
            go()
            if MEASURES_MEMORY:
                self.assertLess(daemon.resources()["rss_kib"], before - 0.8 * WEIGHTS_KIB)
        self.every_way(LEGAL, LEAVES, check)

    def test_weights_replaced(self) -> None:
        def check(daemon: harness.Daemon, go: Callable) -> None:
            before = daemon.resources()["rss_kib"]
            go()
            if MEASURES_MEMORY:
                self.assertLess(daemon.resources()["rss_kib"], before + 0.5 * WEIGHTS_KIB)
        self.every_way(LEGAL, REPLACES, check)

    def test_process_of_an_isolated_library(self) -> None:
        def check(daemon: harness.Daemon, go: Callable) -> None:
            before = hosts(daemon)
            self.assertEqual(len(before), 1)
            go()
            # It is told to end, and gets a moment to do so.
            deadline = time.monotonic() + 60 * SLOW
            while hosts(daemon) & before and time.monotonic() < deadline:
                time.sleep(0.02)
            self.assertEqual(hosts(daemon) & before, set())
        self.every_way(ISOLATED, LEAVES + REPLACES, check)

    def test_image_of_an_in_process_library(self) -> None:
        def check(daemon: harness.Daemon, go: Callable) -> None:
            before = images(daemon)
            self.assertEqual(len(before), 1)
            go()
            self.assertEqual(images(daemon) & before, set())
        self.every_way(IN_PROCESS, LEAVES + REPLACES, check)


if __name__ == "__main__":
    unittest.main()
