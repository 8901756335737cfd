"""kill -9 at random moments during applies: always ready again, on the last acknowledged
composition or the one in progress (design invariant 8). Short form 20 kills, --long 500."""
import random
import shutil
import tempfile
import threading
import time
import unittest
from pathlib import Path

from harness import GOLDEN, LONG, Daemon, split

KILLS = 500 if LONG else 20


class KilledDuringApply(unittest.TestCase):
    def test_last_acknowledged_or_the_one_in_progress(self) -> None:
        seed = int(time.time())
        print(f"seed {seed}")
        rng = random.Random(seed)
        with tempfile.TemporaryDirectory(prefix="chimera-crash-") as scratch:
            parts = split(GOLDEN / "flex_olmo_f32", Path(scratch), a="4", b="5", c="6")
            paths = {n: str(parts / "modules" / n) for n in "abc"}
            daemon = Daemon(parts / "backbone", start=False)
            try:
                self.kill_repeatedly(daemon, rng, paths)
            finally:
                if daemon.process and daemon.process.poll() is None:
                    daemon.kill()
                shutil.rmtree(daemon.work, ignore_errors=True)

    def kill_repeatedly(self, daemon: Daemon, rng: random.Random, paths: dict[str, str]) -> None:
        acknowledged = None  # (epoch, digest) of the last acknowledged change
        in_progress = None   # digest that the change in flight would give
        interrupted = 0
        daemon.start()
        for kill in range(KILLS):
            with daemon.client() as client:
                killer = threading.Timer(rng.uniform(0.0, 0.08), daemon.kill)
                killer.start()
                try:
                    while True:
                        names = rng.sample("abc", rng.randint(0, 3))
                        spec = {"modules": [{"path": paths[n], "bias": rng.randint(-9, 9) / 4}
                                            for n in names]}
                        in_progress = client.plan(spec)["composition"]
                        done = client.apply(spec)
                        acknowledged = (done["epoch"], done["composition"])
                        in_progress = None
                except Exception:  # noqa: BLE001 - the daemon died under the call, as intended
                    pass
                killer.join()
                interrupted += in_progress is not None
            daemon.start()
            with daemon.client() as client:
                now = client.health()["epoch"], client.info()["composition"]
            if acknowledged is None:
                continue
            self.assertIn(now[1], (acknowledged[1], in_progress), f"after kill {kill}")
            self.assertGreaterEqual(now[0], acknowledged[0], f"epoch went back after kill {kill}")
            acknowledged = (now[0], now[1])
            in_progress = None
        self.assertEqual(daemon.stop(), 0)
        print(f"{KILLS} kills, {interrupted} with a change in progress")


if __name__ == "__main__":
    unittest.main()
