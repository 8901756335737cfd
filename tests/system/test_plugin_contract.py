"""The conformance checker turned round: the daemon keeps the contract towards a plugin.

tests/plugins/recorder looks at every call and writes it down; here the daemon loads it, streams
through it, swaps it, refuses it and unloads it, and the record must show no breach and the right
order. recorder_test.cc proves that the recorder notices breaches.
"""
import concurrent.futures
import functools
import hashlib
import json
import shutil
import tempfile
import time
import unittest
from pathlib import Path

import harness
from harness import BUILD, SLOW, SOURCE

import chimera_client

# Libraries here ask to run inside of it.
Daemon = functools.partial(harness.Daemon, in_process=True, libraries={"max_deadline_ms": 10_000})

BACKBONE = SOURCE / "experts" / "backbone"
LEGAL = SOURCE / "experts" / "legal"
FINANCE = BUILD / "modules" / "finance-in-process"
RECORDER = BUILD / "plugins" / "recorder.so"


class PluginContract(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="chimera-contract-"))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        self.log = self.scratch / "record.jsonl"

    def module(self, folder: str, isolation: str = "in-process", config: str = "") -> Path:
        """A module directory around the recorder, with the gate rows of the finance module."""
        target = self.scratch / folder
        target.mkdir()
        shutil.copy(RECORDER, target / "recorder.so")
        shutil.copy(FINANCE / "gate.safetensors", target)
        original = (FINANCE / "module.yaml").read_text().splitlines()
        fingerprint = next(line for line in original if line.startswith("  fingerprint:"))
        digest = {f: hashlib.sha256((target / f).read_bytes()).hexdigest()
                  for f in ("recorder.so", "gate.safetensors")}
        if isolation == "in-process":
            config += f" log={self.log}"
        files = "".join(f"  - path: {f}\n    sha256: sha256:{d}\n" for f, d in digest.items())
        (target / "module.yaml").write_text(
            f"chimera: module/1\nname: recorder\nversion: 1.0.0\ndescription: recorder\n"
            f"license: Apache-2.0\nkind: library\nattach: append\n"
            f"backbone:\n{fingerprint}\n  hidden_size: 256\nlayers: all\n"
            f"library:\n  file: recorder.so\n  isolation: {isolation}\n  deadline_ms: 10000\n  gate: gate.safetensors\n"
            f"  config: \"{config.strip()}\"\nfiles:\n{files}")
        return target

    def record(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def assert_no_breach(self, events: list[dict]) -> None:
        breaches = [f"{e['call']}: {e['what']}" for e in events if e["event"] == "breach"]
        self.assertEqual(sorted(set(breaches)), [], f"{len(breaches)} breaches")

    def assert_order(self, events: list[dict]) -> dict[int, list[str]]:
        """Each instance: prepare, activate, forwards, deactivate, destroy; control calls apart."""
        lives: dict[int, list[str]] = {}
        running: dict[str, list[str]] = {}  # control calls, of each copy of the library
        for e in events:
            name, control = e["event"], running.setdefault(e["library"], [])
            if name.startswith("forward"):
                lives.setdefault(e["instance"], []).append(name)
            elif name.endswith("-end"):
                self.assertEqual(control.pop(), name[:-4])
            elif name != "breach":
                self.assertEqual(control, [], f"{name} while {control} runs")
                control.append(name)
                if e["instance"]:
                    lives.setdefault(e["instance"], []).append(name)
        self.assertEqual([c for c in running.values() if c], [])
        for instance, calls in lives.items():
            steps = [c for c in calls if not c.startswith("forward")]
            self.assertIn(steps, (["prepare", "activate", "deactivate", "destroy"],
                                  ["prepare", "activate", "destroy"], ["prepare", "destroy"]),
                          f"instance {instance}")
            inside = [c for c in calls[calls.index(steps[-1]):] if c.startswith("forward")]
            self.assertEqual(inside, [], f"instance {instance}: forward after {steps[-1]}")
        return lives

    def test_order_memory_and_roles_under_load(self) -> None:
        first, second = self.module("first"), self.module("second")
        with Daemon(BACKBONE, modules=[{"path": str(LEGAL)}], threads=2) as daemon:
            with daemon.client() as control:
                control.load(first, bias=4.0)  # the gate likes it

                def ask(number: int) -> int:
                    with daemon.client() as client:
                        return sum(1 for _ in client.generate(
                            f"The bond number {number} pays", max_tokens=40, temperature=0,
                            ignore_eos=True))

                with concurrent.futures.ThreadPoolExecutor(8) as pool:
                    answers = [pool.submit(ask, n) for n in range(24)]
                    for path in (second, first, second, first):
                        control.load(path, bias=4.0)  # a swap, while streams run
                    self.assertEqual([a.result() for a in answers], [40] * 24)
                control.score(text="The shares closed higher. " * 40)  # batches beyond max_rows
                control.unload("recorder")
            self.assertEqual(daemon.stop(), 0)
        events = self.record()
        self.assert_no_breach(events)
        lives = self.assert_order(events)
        self.assertEqual(len(lives), 5)
        forwards = sum(calls.count("forward") for calls in lives.values())
        rows = max(e["rows"] for e in events if e["event"] == "forward")
        workers = max(e["workers"] for e in events if e["event"] == "forward")
        print(f"{forwards} calls of forward, up to {rows} rows and {workers} workers, "
              f"{len(lives)} instances, no breach")
        self.assertGreater(forwards, 100)
        self.assertLessEqual(rows, 48)
        for library in {e["library"] for e in events}:
            calls = [e["event"] for e in events if e["library"] == library]
            self.assertEqual(calls[-4:], ["destroy", "destroy-end", "deinit", "deinit-end"])

    def test_failures_unwind_in_reverse(self) -> None:
        with Daemon(BACKBONE, modules=[{"path": str(LEGAL)}]) as daemon, daemon.client() as client:
            for step in ("prepare", "activate", "forward"):
                with self.assertRaises(chimera_client.ChimeraError, msg=step):
                    client.load(self.module(step, config=f"fail={step}"))
            self.assertEqual([m["name"] for m in client.modules()], ["legal"])
            self.assertEqual(len(list(client.generate("The parties", max_tokens=4,
                                                      ignore_eos=True))), 4)
            self.assertEqual(daemon.stop(), 0)
        events = self.record()
        self.assert_no_breach(events)
        lives = self.assert_order(events)
        steps = [[c for c in calls if not c.startswith("forward")] for calls in lives.values()]
        self.assertEqual(steps, [["prepare", "destroy"], ["prepare", "activate", "destroy"],
                                 ["prepare", "activate", "deactivate", "destroy"]])

    @staticmethod
    def settled_metrics(client: chimera_client.Client) -> dict[str, int]:
        """The plugin's metrics once they no longer change: its host reports them every second."""
        before, deadline = {}, time.monotonic() + 60 * SLOW
        while time.monotonic() < deadline:
            module = next(m for m in client.modules() if m["name"] == "recorder")
            metrics = module["library"]["metrics"]
            if metrics and metrics == before:
                break
            before = metrics
            time.sleep(1.5)
        return before

    def test_isolated_host_keeps_it_too(self) -> None:
        with Daemon(BACKBONE, modules=[{"path": str(LEGAL)}]) as daemon, daemon.client() as client:
            try:
                client.load(self.module("isolated", isolation="process"), bias=4.0)
            except chimera_client.ChimeraError as error:
                if error.code == "unimplemented":
                    self.skipTest(f"no isolated modules here: {error}")
                raise
            self.assertEqual(len(list(client.generate("The bond pays", max_tokens=40,
                                                      temperature=0, ignore_eos=True))), 40)
            client.score(text="The shares closed higher. " * 40)
            metrics = self.settled_metrics(client)
            print("isolated:", metrics)
            self.assertGreater(metrics["calls"], 40)
            self.assertEqual(metrics.get("breaches", 0), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
