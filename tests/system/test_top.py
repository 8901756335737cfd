"""`chimera top`: one look for scripts, one for people, and a live one in a terminal."""
import json
import os
import pathlib
import pty
import select
import subprocess
import tempfile
import time
import unittest

from harness import BIN, GOLDEN, SLOW, Daemon, split


class TopTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = tempfile.TemporaryDirectory(prefix="chimera-top-")
        parts = split(GOLDEN / "mixtral_bf16", pathlib.Path(cls.scratch.name), legal="6,7")
        cls.daemon = Daemon(parts / "backbone", modules=[{"path": str(parts / "modules" / "legal"), "bias": 0.5}])
        cls.client = cls.daemon.client()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.client.close()
        cls.daemon.__exit__(None, None, None)
        cls.scratch.cleanup()

    def test_once_for_scripts(self) -> None:
        told = self.daemon.cli("--json", "top", "--once", "--interval", "0.05").stdout.splitlines()
        self.assertEqual(len(told), 1)
        top = json.loads(told[0])
        info = self.client.info()
        self.assertEqual((top["epoch"], top["composition"]), (info["epoch"], info["composition"]))
        self.assertEqual([m["name"] for m in top["modules"]], ["backbone", "legal"])
        self.assertEqual(top["modules"][1]["bias"], 0.5)
        self.assertGreaterEqual(top["seconds"], 0.05)

    def test_rates_and_shares_are_of_the_time_between_two_looks(self) -> None:
        watch = subprocess.Popen([BIN / "chimera", "--endpoint", self.daemon.serve_endpoint, "--control",
                                  self.daemon.control_endpoint, "--json", "top", "--interval", "0.1"],
                                 stdout=subprocess.PIPE, text=True)
        assert watch.stdout is not None
        try:
            json.loads(watch.stdout.readline())
            self.client.complete(tokens=[1, 2, 3], max_tokens=60, temperature=0, ignore_eos=True)
            end = time.monotonic() + 60 * SLOW
            while True:
                top = json.loads(watch.stdout.readline())
                if top["tokens_per_second"] > 0:
                    break
                self.assertLess(time.monotonic(), end, "the tokens were never seen")
            self.assertAlmostEqual(sum(m["share_now"] for m in top["modules"]), 1.0, places=9)
        finally:
            watch.kill()
            watch.wait()
            watch.stdout.close()

    def test_a_live_view_in_80_columns(self) -> None:
        process, ours = pty.fork()
        if process == 0:
            os.environ["COLUMNS"] = "80"
            os.execv(BIN / "chimera", ["chimera", "--endpoint", self.daemon.serve_endpoint, "--control",
                                       self.daemon.control_endpoint, "top", "--interval", "0.1"])
        seen = b""

        def until(text: bytes) -> None:
            nonlocal seen
            end = time.monotonic() + 60 * SLOW
            while text not in seen:
                self.assertLess(time.monotonic(), end, seen)
                if select.select([ours], [], [], 1)[0]:
                    seen += os.read(ours, 65536)

        until(b"q ends")
        os.write(ours, b"n")
        seen = b""
        until(b"q ends")
        lines = seen.decode(errors="replace").replace("\x1b[H\x1b[2J", "").splitlines()
        self.assertTrue(any(line.startswith("backbone") for line in lines), lines)
        self.assertEqual([line for line in lines if len(line) > 80], [])
        os.write(ours, b"q")
        end = time.monotonic() + 60 * SLOW
        while True:  # what it still writes must be read
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    os.read(ours, 65536)
                except OSError:
                    break
            self.assertLess(time.monotonic(), end, "q does not end it")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), 0)
        os.close(ours)


if __name__ == "__main__":
    unittest.main()
