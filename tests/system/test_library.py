"""Library modules through the daemon: the finance expert as code beside its weights-kind twin.

The same module name and gate rows; the library holds the experts in int8. What must hold: the
invariants of the design with code in the table, a swap between the two kinds under load, a failed
load that leaves everything, and cycles that leave nothing (short form 150, --long 1,000).
"""
import functools
import random
import re
import shutil
import tempfile
import threading
import time
import unittest
from pathlib import Path

import harness
from harness import BUILD, LONG, MEASURES_MEMORY, SLOW, SOURCE, flat, wait_for

import chimera_client

# Libraries here ask to run inside of it.
Daemon = functools.partial(harness.Daemon, in_process=True)

BACKBONE = SOURCE / "experts" / "backbone"
WEIGHTS = SOURCE / "experts" / "finance"
LEGAL = SOURCE / "experts" / "legal"
LIBRARY = BUILD / "modules" / "finance-in-process"
TEXT = (SOURCE / "experts" / "train" / "excerpts" / "finance.txt").read_text()[:2000]
CYCLES = 1000 if LONG else 150
CHANGES_PER_SECOND = 8  # at most
CHANGES = int(CHANGES_PER_SECOND * (60 if LONG else 8) / SLOW)


def logits(client, **options):
    tokens = [(i * 7919 + 1) % 8192 for i in range(64)]
    return flat(client.score(tokens=tokens, logits=True, **options).logits)


class LibraryModule(unittest.TestCase):
    isolation = "in-process"
    maps_slack = 0

    def setUp(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="chimera-library-"))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)

    def copy(self, **changes: str) -> Path:
        """The library module with patterns in its manifest replaced."""
        target = self.scratch / f"copy-{random.getrandbits(48):x}"
        shutil.copytree(LIBRARY, target)
        manifest = target / "module.yaml"
        text = manifest.read_text()
        for found, put in changes.items():
            text, count = re.subn(found, put, text)
            assert count > 0, (found, text)
        manifest.write_text(text)
        return target

    def test_scores_like_its_weights_kind_twin(self) -> None:
        with Daemon(BACKBONE, modules=[{"path": str(LEGAL)}]) as daemon, daemon.client() as client:
            without = client.score(text=TEXT).bits_per_byte
            client.load(WEIGHTS)
            weights = client.score(text=TEXT)
            client.load(LIBRARY)  # the swap: same name
            library = client.score(text=TEXT)
            deadline = time.monotonic() + 60 * SLOW
            modules = {m["name"]: m for m in client.modules()}
            # The counters of a process of its own arrive now and then.
            while not modules["finance"]["library"]["metrics"].get("rows") and \
                    time.monotonic() < deadline:
                time.sleep(0.05)
                modules = {m["name"]: m for m in client.modules()}
        a, b = weights.bits_per_byte, library.bits_per_byte
        print(f"bits per byte: without {without:.4f}, weights {a:.5f}, library {b:.5f} "
              f"({b - a:+.5f})")
        self.assertEqual(modules["finance"]["kind"], "library")
        self.assertEqual(modules["finance"]["library"]["isolation"], self.isolation)
        self.assertEqual(modules["finance"]["library"]["state"], "active")
        self.assertGreater(modules["finance"]["library"]["metrics"]["rows"], 0)
        # int8 rounding is a perturbation of 1 % of an expert's output (experts_kinds_finance_test), one
        # of several contributions to a hidden state. What it costs must vanish beside what the
        # expert gains.
        self.assertGreater(without - a, 0.01)
        self.assertLess(abs(b - a), 0.1 * (without - a))
        share = {k: v.provenance["modules"]["finance"]["share"]
                 for k, v in {"weights": weights, "library": library}.items()}
        self.assertAlmostEqual(share["weights"], share["library"], delta=0.02)

    def test_masked_is_bitwise_never_loaded(self) -> None:
        with Daemon(BACKBONE, modules=[{"path": str(LEGAL)}], threads=2) as daemon, \
                daemon.client() as client:
            never = logits(client)
            client.load(LIBRARY)
            self.assertNotEqual(logits(client), never)
            self.assertEqual(logits(client, modules={"exclude": ["finance"]}), never)
            client.unload("finance")
            self.assertEqual(logits(client), never)

    def test_revoked_is_not_touched(self) -> None:
        with Daemon(BACKBONE) as daemon, daemon.client() as client:
            client.load(LIBRARY)
            result: list[object] = []

            def long_stream() -> None:
                with daemon.client() as other:
                    generation = other.generate(prompt="The Committee decided", max_tokens=300,
                                                temperature=0, ignore_eos=True)
                    result.append(sum(1 for _ in generation))
                    result.append(generation.done)
            thread = threading.Thread(target=long_stream)
            thread.start()
            wait_for(lambda: client.stats()["engine"]["live"] == 1 or result, "the stream live")
            client.revoke("finance")
            rows = self.wait_retired(client)
            thread.join()
            self.assertEqual(rows["unloaded"], 1, rows)
            self.assertIn(result[1]["finish_reason"], ("length", "revoked"))

    def wait_retired(self, client) -> dict:
        """Statistics once the library is unmapped."""
        deadline = time.monotonic() + 60 * SLOW
        while True:
            stats = client.stats()["libraries"]
            if stats["loaded"] == stats["unloaded"] + stats["kept"] or \
                    time.monotonic() > deadline:
                return stats
            time.sleep(0.01)

    def test_failed_loads_leave_everything(self) -> None:
        bad = {
            "another version": self.copy(**{r'version: "[0-9.]+"': 'version: "9.9.9"'}),
            "another id": self.copy(**{"org.chimera.finance": "org.chimera.other"}),
            "a configuration it refuses": self.copy(**{"  gate:": "  config: \"x\"\n  gate:"}),
            "a bound it misses": self.copy(**{r"max_bits_per_byte: [0-9.]+": "max_bits_per_byte: 0.1"}),
        }
        flipped = self.copy()
        data = bytearray((flipped / "finance.so").read_bytes())
        data[len(data) // 2] ^= 1
        (flipped / "finance.so").write_bytes(data)
        bad["a flipped bit"] = flipped
        with Daemon(BACKBONE, one_heap=True) as daemon, daemon.client() as client:
            client.load(LIBRARY)

            def fail_all() -> None:
                for why, path in bad.items():
                    with self.assertRaises(chimera_client.ChimeraError, msg=why):
                        client.load(path)
            fail_all()
            epoch, out = client.stats()["epoch"], logits(client)
            allowed = {"fds": 0}
            if MEASURES_MEMORY:
                # Four threads load, and each keeps a mapping from its first one; a leak of one kind
                # of failure would be five.
                allowed |= {"maps": self.maps_slack + 3, "rss_kib": 1024}

            def five_times() -> None:
                for _ in range(5):
                    fail_all()
            grown = daemon.growth(five_times, allowed)
            for key, bound in allowed.items():
                self.assertLessEqual(grown[key], bound, key)
            self.assertEqual(client.stats()["epoch"], epoch)
            self.assertEqual(logits(client), out)
            self.assertEqual(client.stats()["libraries"]["kept"], 0)

    def test_cycles_are_flat(self) -> None:
        with Daemon(BACKBONE, one_heap=True) as daemon, daemon.client() as client:
            def cycle() -> None:
                client.load(LIBRARY)
                client.complete(tokens=[1, 2, 3], max_tokens=2, temperature=0)
                client.unload("finance")
            for _ in range(20):
                cycle()
            self.wait_retired(client)
            allowed = {"fds": 0, "threads": 0}
            if MEASURES_MEMORY:
                allowed |= {"rss_kib": 8 * 1024, "maps": self.maps_slack}
            cycles = 20

            def many() -> None:
                nonlocal cycles
                for _ in range(CYCLES):
                    cycle()
                cycles += CYCLES
                self.wait_retired(client)
            grown = daemon.growth(many, allowed)
            stats = client.stats()["libraries"]
        print(f"{CYCLES} cycles: {grown}, {stats['loaded']} loaded, {stats['unloaded']} unloaded")
        self.assertEqual(stats["unloaded"], cycles)
        for key, bound in allowed.items():
            self.assertLessEqual(grown[key], bound, key)

    def test_new_library_under_the_same_path_runs(self) -> None:
        """Hot replacement: other bytes at the same path, by rename, while the old one serves."""
        place = self.copy()
        with Daemon(BACKBONE) as daemon, daemon.client() as client:
            client.load(place)
            builds = {client.modules()[0]["digest"]}
            first = logits(client)
            # The old directory moves away and one with other code (its weights twin) takes its place,
            # then the library comes back.
            place.rename(self.scratch / "old")
            shutil.copytree(WEIGHTS, place)
            client.load(place)
            self.assertNotEqual(logits(client), first)
            shutil.rmtree(place)
            (self.scratch / "old").rename(place)
            client.load(place)
            builds.add(client.modules()[0]["digest"])
            self.assertEqual(logits(client), first)
            self.assertEqual(len(builds), 1)

    def test_swap_storm(self) -> None:
        """Streams beside swaps between library and weights: none breaks, excluded ones are bitwise."""
        seed = int(time.time())
        print(f"seed {seed}")
        rng = random.Random(seed)
        clients = 16
        failures: list[str] = []
        finished = [0] * clients
        stop = threading.Event()

        def run(client, c: int):
            options = {"modules": {"only": ["legal"]}} if c % 2 == 0 else {}
            generation = client.generate(tokens=[c + 5, 3 * c + 9, 77], max_tokens=24, temperature=0,
                                         ignore_eos=True, logprobs=True, **options)
            out = [(t.token, t.logprob) for t in generation]
            if generation.done["finish_reason"] != "length" or len(out) != 24:
                failures.append(f"client {c}: {generation.done}")
            return out

        with Daemon(BACKBONE, modules=[{"path": str(LEGAL)}]) as daemon, daemon.client() as control:
            quiet = [run(control, c) for c in range(clients)]

            def streamer(c: int) -> None:
                try:
                    with daemon.client() as client:
                        while not stop.is_set():
                            if run(client, c) != quiet[c] and c % 2 == 0:
                                failures.append(f"client {c}: other tokens")
                            finished[c] += 1
                except Exception as error:  # noqa: BLE001 - any failure is a finding
                    failures.append(f"client {c}: {error!r}")
            threads = [threading.Thread(target=streamer, args=(c,)) for c in range(clients)]
            for thread in threads:
                thread.start()
            changes, begin, loaded = 0, time.monotonic(), False
            # So many changes, not so many seconds: a busy machine takes longer and sees the same.
            while (changes < CHANGES or not all(finished)) and not failures:
                if loaded and rng.random() < 0.4:
                    control.unload("finance")
                    loaded = False
                else:
                    control.load(rng.choice([LIBRARY, LIBRARY, WEIGHTS]),
                                 in_flight=rng.choice(["pin", "restart"]))
                    loaded = True
                changes += 1
                time.sleep(max(0.0, begin + changes / CHANGES_PER_SECOND - time.monotonic()))
            stop.set()
            for thread in threads:
                thread.join()
            if loaded:
                control.unload("finance")
            stats = self.wait_retired(control)
        print(f"{changes} changes, {sum(finished)} requests, libraries {stats}")
        self.assertEqual(failures, [])
        self.assertGreater(min(finished), 0)
        self.assertGreater(stats["loaded"], 3 / SLOW)
        self.assertEqual(stats["unloaded"], stats["loaded"])


if __name__ == "__main__":
    unittest.main()
