"""A library module in a process of its own: what it does wrong stays its own.

The sinner (tests/plugins/runtime/sinner.cc) computes y = x / 2 until it has been called N times;
then it sins. Requests that may not use it give bitwise the tokens and log-probabilities of their
quiet run all the while; its own are answered by policy, and right again after it was restarted.
The promise is an answer within 250 ms (chimera-bench isolation measures it); a loaded machine gets
more here.
"""
import hashlib
import json
import os
import pathlib
import shutil
import signal
import struct
import tempfile
import threading
import time
import unittest
from typing import Any

from harness import BUILD, SLOW, SOURCE, Daemon, wait_for
import chimera_client

BACKBONE = SOURCE / "experts" / "backbone"
LEGAL = SOURCE / "experts" / "legal"
LIBRARY = BUILD / "plugins" / "runtime_sinner_demo.so"
HIDDEN, LAYERS = 256, 6
# Self-test (3 calls per expert) and probe (2 runs) while loading make 30 calls; a request of the
# length used here makes about 6 per token.
AFTER = 100
PROBED = 20  # calls: past the self-test, into the probe
ANSWERED_S = 60.0 * SLOW
RECOVERED_S = 60.0 * SLOW
# Of a call: long beside what a busy machine keeps an honest one waiting.
DEADLINE_MS = int(1000 * SLOW)


def gate_file(path: pathlib.Path) -> None:
    """Gate rows like those of a trained module: deterministic, around 0.05."""
    data, header, at = b"", {}, 0
    for layer in range(LAYERS):
        row = [0.05 * (((7 * i + 3 * layer) % 11) - 5) / 5 for i in range(HIDDEN)]
        data += struct.pack(f"<{HIDDEN}f", *row)
        header[f"layers.{layer}.gate.weight"] = {
            "dtype": "F32", "shape": [1, HIDDEN], "data_offsets": [at, at + 4 * HIDDEN]}
        at += 4 * HIDDEN
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_module(directory: pathlib.Path, sin: str, on_failure: str = "fail",
                 deadline_ms: int = DEADLINE_MS, memory_mib: int = 1024,
                 isolation: str = "process") -> pathlib.Path:
    directory.mkdir(parents=True)
    shutil.copy(LIBRARY, directory / "sinner.so")
    os.chmod(directory / "sinner.so", 0o644)
    gate_file(directory / "gate.safetensors")
    fingerprint = next(line.split()[1] for line in (LEGAL / "module.yaml").read_text().splitlines()
                       if line.startswith("  fingerprint:"))

    def digest(name: str) -> str:
        return "sha256:" + hashlib.sha256((directory / name).read_bytes()).hexdigest()

    (directory / "module.yaml").write_text(f"""chimera: module/1
name: sinner
version: 1.0.0
domain: test
description: Halves until it sins
license: Apache-2.0
kind: library
attach: append
backbone:
  fingerprint: {fingerprint}
  hidden_size: {HIDDEN}
layers: all
library:
  file: sinner.so
  gate: gate.safetensors
  on_failure: {on_failure}
  config: "{sin}"
  deadline_ms: {deadline_ms}
  memory_mib: {memory_mib}
  isolation: {isolation}
files:
  - path: sinner.so
    sha256: {digest("sinner.so")}
  - path: gate.safetensors
    sha256: {digest("gate.safetensors")}
""")
    return directory


def stream(client: chimera_client.Client, seed: int, only: list[str]) -> tuple[list[Any], dict]:
    tokens = [(31 * seed + 17 * i) % 8000 + 2 for i in range(20)]
    generation = client.generate(tokens=tokens, temperature=0, ignore_eos=True, logprobs=True,
                                 max_tokens=16, modules={"only": only})
    out = [(t.token, t.logprob) for t in generation]
    assert generation.done is not None
    return out, generation.done


def runs(pid: int) -> bool:
    """Whether there is such a process, other than as a zombie that nobody has waited for."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rsplit(")", 1)[1].split()[0] != "Z"


def nice_of(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def hosts_of(pid: int) -> list[int]:
    """Plugin hosts that are children of `pid`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:
            continue
        name = text[text.index("(") + 1:text.rindex(")")]
        state, parent = text.rsplit(")", 1)[1].split()[:2]
        # A thread in a plugin is called chimera-plug-in.
        if name.startswith("chimera-plug") and int(parent) == pid and state != "Z":
            found.append(int(entry.name))
    return found


class Others:
    """Streams that may not use the sinner, compared with their quiet run."""

    def __init__(self, daemon: Daemon, clients: int = 2) -> None:
        self.daemon, self.failures, self.finished = daemon, [], 0
        self.stop = threading.Event()
        with daemon.client() as client:
            self.quiet = [stream(client, c, ["legal"])[0] for c in range(clients)]
        self.threads = [threading.Thread(target=self.run, args=(c,)) for c in range(clients)]

    def run(self, c: int) -> None:
        try:
            with self.daemon.client() as client:
                while not self.stop.is_set():
                    out, done = stream(client, c, ["legal"])
                    if out != self.quiet[c] or done["finish_reason"] != "length":
                        self.failures.append(f"client {c}: {done}")
                    self.finished += 1
        except Exception as error:  # noqa: BLE001 - any failure is a finding
            self.failures.append(f"client {c}: {error!r}")

    def __enter__(self) -> "Others":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


class Isolation(unittest.TestCase):
    def setUp(self) -> None:
        if not LIBRARY.exists():
            self.skipTest(f"{LIBRARY} is not built")
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="chimera-isolation-"))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)

    def daemon(self, **options: Any) -> Daemon:
        return Daemon(BACKBONE, modules=[{"path": str(LEGAL)}], precision="bf16", top_k=2,
                      libraries={"max_deadline_ms": 60_000}, **options)

    def module(self, sin: str, on_failure: str = "fail", **options: Any) -> pathlib.Path:
        return write_module(self.scratch / f"{sin}-{on_failure}".replace(" ", "-"), sin, on_failure,
                            **options)

    def library(self, client: chimera_client.Client) -> dict[str, Any]:
        return next(m for m in client.modules() if m["name"] == "sinner")["library"]

    def request(self, client: chimera_client.Client, seed: int = 50) -> tuple[str, Any, float]:
        begin = time.monotonic()
        try:
            out, done = stream(client, seed, ["sinner"])
            return "ok", (out, done), time.monotonic() - begin
        except chimera_client.ChimeraError as error:
            return error.code, error, time.monotonic() - begin

    def until_ok(self, client: chimera_client.Client) -> Any:
        end = time.monotonic() + RECOVERED_S
        while time.monotonic() < end:
            if self.library(client)["state"] != "active":  # it would meet only part of the request
                time.sleep(0.02)
                continue
            code, result, _ = self.request(client)
            if code == "ok" and "dropped_choices" not in result[1]["provenance"]:
                return result
            time.sleep(0.02)
        self.fail(f"the module did not come back: {self.library(client)}")

    def sin_under_load(self, sin: str, crashes: bool) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            client.load(self.module("none 0"))
            expected = self.request(client)[1][0]
            client.unload("sinner")
            client.load(self.module(f"{sin} {AFTER}"))
            with Others(daemon) as others:
                codes = set()
                for seed in range(60, 90):
                    code, result, took = self.request(client, seed)
                    self.assertLess(took, ANSWERED_S)
                    codes.add(code)
                    if code != "ok":
                        self.assertEqual(code, "unavailable", result)
                        self.assertIn("module sinner", str(result))
                        break
                if sin == "flood":
                    self.assertEqual(codes, {"ok"})
                else:
                    self.assertIn("unavailable", codes)
                if crashes:
                    # A host that was restarted has not been called often enough to sin again.
                    self.assertEqual(self.until_ok(client)[0], expected)
                    self.assertGreaterEqual(self.library(client)["restarts"], 1)
                else:
                    self.assertEqual(self.library(client)["restarts"], 0)
                done_before = others.finished
                wait_for(lambda: others.finished > done_before or others.failures,
                         "another stream finished")
                self.assertEqual(client.health()["status"], "ok", client.health())
            self.assertEqual(others.failures, [])

    def test_segfault(self) -> None:
        self.sin_under_load("segfault", True)

    def test_abort(self) -> None:
        self.sin_under_load("abort", True)

    def test_exit(self) -> None:
        self.sin_under_load("exit", True)

    def test_spin(self) -> None:
        self.sin_under_load("spin", True)

    def test_deadlock(self) -> None:
        self.sin_under_load("deadlock", True)

    def test_write_past_its_row(self) -> None:
        self.sin_under_load("write_past", True)

    def test_nan(self) -> None:
        self.sin_under_load("nan", False)

    def test_log_flood(self) -> None:
        self.sin_under_load("flood", False)

    def test_failing_in_the_probe_is_told_from_nonsense(self) -> None:
        """The first loads at all (self-test), then sins while the probe runs."""
        causes = {f"segfault {PROBED}": "lost", f"invalid {PROBED}": "not this row",
                  f"nan {PROBED}": "finite"}
        with self.daemon() as daemon, daemon.client() as client:
            for sin, cause in causes.items():
                for policy in ("fail", "drop"):
                    with self.subTest(sin=sin, policy=policy), \
                            self.assertRaises(chimera_client.ChimeraError) as refused:
                        client.load(self.module(sin, policy))
                    text = str(refused.exception)
                    if policy == "drop":  # the call failed on its rows, whatever the cause
                        self.assertIn("an expert failed", text)
                    else:
                        self.assertIn(cause, text)
                    self.assertEqual("finite" in text, cause == "finite" and policy == "fail")
            self.assertEqual([m["name"] for m in client.modules()], ["legal"])

    def test_a_requests_deadline_reaches_the_module_and_is_not_its_failure(self) -> None:
        """Its own limit is far away: what ends the call is the deadline of the one who waits."""
        for policy in ("fail", "drop"):
            with self.subTest(policy=policy), self.daemon() as daemon, daemon.client() as client:
                client.load(self.module(f"gives_up {AFTER}", policy, deadline_ms=60_000))
                with Others(daemon) as others:
                    done: dict[str, Any] = {}
                    for seed in range(60, 90):
                        begin = time.monotonic()
                        generation = client.generate(
                            tokens=[(31 * seed + 17 * i) % 8000 + 2 for i in range(20)], temperature=0,
                            ignore_eos=True, max_tokens=16, modules={"only": ["sinner"]},
                            deadline_ms=int(1000 * SLOW))
                        tokens, done = list(generation), generation.done
                        if done["finish_reason"] != "length":
                            break
                    self.assertEqual(done["finish_reason"], "deadline")
                    self.assertLess(time.monotonic() - begin, ANSWERED_S)
                    self.assertEqual(done["usage"]["completion_tokens"], len(tokens))
                    self.assertNotIn("dropped_choices", done["provenance"])
                    library = self.library(client)
                    self.assertEqual(library["state"], "active")
                    self.assertEqual((library["failures"], library["restarts"]), (0, 0))
                self.assertEqual(others.failures, [])

    def test_killed_from_outside(self) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            client.load(self.module("none 0"))
            expected = self.request(client)[1][0]
            with Others(daemon) as others:
                for _ in range(3):
                    hosts = hosts_of(daemon.pid)
                    self.assertEqual(len(hosts), 1)
                    os.kill(hosts[0], signal.SIGKILL)
                    self.assertEqual(self.until_ok(client)[0], expected)
            self.assertEqual(others.failures, [])
            self.assertEqual(self.library(client)["restarts"], 3)

    def test_drop_goes_on_without_the_module(self) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            client.load(self.module("none 0"))
            expected = self.request(client)[1][0]
            client.unload("sinner")
            client.load(self.module(f"segfault {AFTER}", "drop"))
            with Others(daemon) as others:
                dropped = 0
                for seed in range(60, 90):
                    code, result, took = self.request(client, seed)
                    self.assertLess(took, ANSWERED_S)
                    self.assertEqual(code, "ok", result)
                    dropped = result[1]["provenance"].get("dropped_choices", 0)
                    if dropped > 0:
                        break
                self.assertGreater(dropped, 0)
                # The very prompt that was answered without the module: nothing of that is cached.
                with_it = self.until_ok(client)
                self.assertEqual(with_it[0], expected)
                self.assertGreater(client.stats()["engine"]["dropped_choices"], 0)
            self.assertEqual(others.failures, [])

    def test_hosts_die_with_the_daemon_and_with_their_module(self) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            client.load(self.module("none 0"))
            self.assertEqual(len(hosts_of(daemon.pid)), 1)
            client.unload("sinner")
            self.gone(lambda: hosts_of(daemon.pid))
            client.load(self.scratch / "none-0-fail")
            (host,) = hosts_of(daemon.pid)
            # Its calls are part of the streams, though it was started by a load.
            self.assertEqual(nice_of(host), nice_of(daemon.pid))
            sandbox = self.library(client)["sandbox"]
            self.assertIn("no-new-privs", sandbox)
            daemon.kill()
            self.gone(lambda: runs(host))

    def gone(self, found: Any) -> None:
        end = time.monotonic() + 60 * SLOW
        while found() and time.monotonic() < end:
            time.sleep(0.01)
        self.assertFalse(found())

    def test_quarantine_is_remembered_over_a_restart(self) -> None:
        module = self.module(f"segfault {AFTER}")
        with self.daemon() as daemon:
            with daemon.client() as client:
                client.load(module)
                end = time.monotonic() + 2 * RECOVERED_S
                while self.library(client)["state"] != "quarantined":
                    self.assertLess(time.monotonic(), end, self.library(client))
                    self.request(client)
                    time.sleep(0.01)
                code, error, took = self.request(client)
                self.assertEqual(code, "unavailable")
                self.assertIn("quarantine", str(error))
                self.assertLess(took, ANSWERED_S)
                self.shown_as_quarantined(daemon, client, module)
            self.assertEqual(daemon.stop(), 0)
            daemon.start()
            with daemon.client() as client:
                self.assertEqual([m["name"] for m in client.modules()], ["legal"])
                with self.assertRaises(chimera_client.FailedPrecondition) as refused:
                    client.load(module)
                self.assertIn("quarantine", str(refused.exception))
                shutil.rmtree(daemon.work / "state" / "quarantine")
                client.load(module)

    def shown_as_quarantined(self, daemon: Daemon, client, module: pathlib.Path) -> None:
        """The one in quarantine is not called active, `load` says why it is shut out, and lifting
        the quarantine makes `load` start it again."""
        name = next(m["name"] for m in client.modules() if "library" in m)
        state = {m["name"]: m["state"] for m in client.modules()}[name]
        self.assertEqual(state, "quarantined")
        shown = daemon.cli("modules").stdout
        self.assertRegex(shown, rf"{name} .*quarantined")
        self.assertRegex(shown, rf"{name}: process, sandbox .*; \d+ restarts; last error: its process")
        with self.assertRaises(chimera_client.FailedPrecondition) as refused:
            client.load(module)
        self.assertIn("quarantine", str(refused.exception))
        self.assertNotIn("try again", str(refused.exception))
        records = daemon.work / "state" / "quarantine"
        kept = daemon.work / "quarantine-kept"
        records.rename(kept)
        changed = client.load(module)
        self.assertEqual([(c["action"], c["module"]) for c in changed["changes"]], [("restart", name)])
        self.assertEqual({m["name"]: m["state"] for m in client.modules()}[name], "active")
        kept.rename(records)


if __name__ == "__main__":
    unittest.main()
