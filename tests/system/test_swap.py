"""Swapping under load: 16 streaming clients while modules are loaded, unloaded and swapped.

Every request gets exactly one terminal event and none fails; greedy requests that exclude the
swapped modules give bitwise the tokens and log-probabilities of their quiet run.
Short form 64 changes, full length (--long) 480, at most 8 a second; a busy machine takes longer.
"""
import random
import shutil
import tempfile
import threading
import time
import unittest
from pathlib import Path

from harness import GOLDEN, LONG, SLOW, Daemon, split

CLIENTS = 16
CHANGES_PER_SECOND = 8  # at most
CHANGES = int(CHANGES_PER_SECOND * (60 if LONG else 8) / SLOW)


def stream(client, tokens, **options):
    """[(token, logprob)] of one greedy streaming request; checks there is one terminal event."""
    generation = client.generate(tokens=tokens, temperature=0, ignore_eos=True, logprobs=True,
                                 **options)
    out = [(t.token, t.logprob) for t in generation]
    done = generation.done
    assert done is not None and done["finish_reason"] == "length", done
    assert done["usage"]["completion_tokens"] == len(out), (done, len(out))
    return out


class SwapStorm(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = Path(tempfile.mkdtemp(prefix="chimera-swap-"))
        cls.parts = split(GOLDEN / "flex_olmo_f32", cls.scratch, fixed="4", first="5", second="6")
        # The swap partner: other weights under the same module name.
        other = split(GOLDEN / "flex_olmo_f32", cls.scratch / "other", fixed="4", first="6",
                      second="5")
        cls.variant = other / "modules" / "first"

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.scratch, ignore_errors=True)

    def change(self, client, rng: random.Random, loaded: set[str]) -> None:
        modules = self.parts / "modules"
        name = rng.choice(["first", "second"])
        in_flight = rng.choice(["pin", "restart"])
        if name in loaded and rng.random() < 0.5:
            client.unload(name)
            loaded.discard(name)
            return
        path = self.variant if name == "first" and rng.random() < 0.5 else modules / name
        client.load(path, in_flight=in_flight)
        loaded.add(name)

    def test_no_stream_breaks_and_unaffected_ones_are_bitwise_equal(self) -> None:
        seed = int(time.time())
        print(f"seed {seed}")
        prompts = [[(7 * c + 13 * i) % 300 + 1 for i in range(5 + c)] for c in range(CLIENTS)]
        failures: list[str] = []
        finished = [0] * CLIENTS
        stop = threading.Event()
        with Daemon(self.parts / "backbone",
                    modules=[{"path": str(self.parts / "modules" / "fixed")}]) as daemon:
            with daemon.client() as client:
                quiet = [stream(client, p, max_tokens=24, modules={"only": ["fixed"]})
                         for p in prompts]

            def streamer(c: int) -> None:
                unaffected = c % 2 == 0
                options = {"modules": {"only": ["fixed"]}} if unaffected else {}
                try:
                    with daemon.client() as client:
                        while not stop.is_set():
                            out = stream(client, prompts[c], max_tokens=24, **options)
                            if unaffected and out != quiet[c]:
                                failures.append(f"client {c}: {out} != {quiet[c]}")
                            finished[c] += 1
                except Exception as error:  # noqa: BLE001 - any failure is a finding
                    failures.append(f"client {c} after {finished[c]}: {error!r}")

            threads = [threading.Thread(target=streamer, args=(c,)) for c in range(CLIENTS)]
            for thread in threads:
                thread.start()
            changes = self.storm(daemon, random.Random(seed), failures, finished)
            stop.set()
            for thread in threads:
                thread.join()
            with daemon.client() as client:
                stats = client.stats()["engine"]
        print(f"{changes} changes, {sum(finished)} requests, slowest client {min(finished)}")
        self.assertEqual(failures, [])
        self.assertGreater(min(finished), 0)
        self.assertGreaterEqual(changes, CHANGES)
        self.assertEqual(stats["failed"], 0)

    def storm(self, daemon: Daemon, rng: random.Random, failures: list[str],
              finished: list[int]) -> int:
        changes, loaded = 0, set()
        begin = time.monotonic()
        with daemon.client() as client:
            while (changes < CHANGES or not all(finished)) and not failures:
                try:
                    self.change(client, rng, loaded)
                except Exception as error:  # noqa: BLE001
                    failures.append(f"change {changes}: {error!r}")
                changes += 1
                time.sleep(max(0.0, begin + changes / CHANGES_PER_SECOND - time.monotonic()))
        return changes


if __name__ == "__main__":
    unittest.main()
