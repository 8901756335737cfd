"""What the system tests share: the programs as a user runs them, in a private directory.

The Python client is the independent peer: it shares no code with the daemon.
"""
from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from typing import Any, Callable

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CHIMERA_BUILD", SOURCE / "build"))
BIN = BUILD / "bin"
GOLDEN = SOURCE / "tests" / "golden"
DEMO = SOURCE / "experts"
SHARED_GOLDEN = SOURCE.parent / "shared" / "golden" / "open"
LONG = os.environ.get("CHIMERA_LONG") == "1"
# Sanitizer builds run several times slower; only waiting times are stretched by this.
SLOW = float(os.environ.get("CHIMERA_SLOW", "1"))
# Sanitizers keep freed memory: what a daemon has resident and mapped says nothing there.
MEASURES_MEMORY = SLOW == 1

# A shell starts background jobs with SIGINT ignored, and programs that are started inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.insert(0, str(SOURCE / "clients" / "python"))
import chimera_client  # noqa: E402


def run(*args: str | os.PathLike[str], check: bool = True, timeout: float = 120,
        **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program of the build ("chimera", "chimerad") and returns its output as text."""
    command = [str(BIN / args[0]), *map(str, args[1:])]
    done = subprocess.run(command, text=True, capture_output=True, timeout=timeout * SLOW, **kwargs)
    if check and done.returncode != 0:
        raise AssertionError(f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def split(checkpoint: pathlib.Path, out: pathlib.Path, **modules: str) -> pathlib.Path:
    """Cuts `checkpoint` into out/backbone and out/modules/NAME (NAME="slots"); returns `out`."""
    args: list[str] = ["module", "split", str(checkpoint), "--backbone", str(out / "backbone"),
                       "--modules-out", str(out / "modules")]
    for name, slots in modules.items():
        args += ["--module", f"{name}={slots}"]
    out.mkdir(parents=True, exist_ok=True)
    run("chimera", *args)
    return out


# A registry that answers slowly must not use up the time of the test itself.
NPM_PATIENCE = 240


def npm_folder(packages: pathlib.Path) -> pathlib.Path:
    """A folder of the build with the files of `packages` and what its package-lock.json says. Skips
    the test where there is no node, or npm's registry cannot be reached."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise unittest.SkipTest("no node and npm here")
    folder = BUILD / packages.name
    folder.mkdir(exist_ok=True)
    locked = (packages / "package-lock.json").read_bytes()
    done = folder / "installed.json"  # what the last install was of
    for file in packages.iterdir():
        if file.is_file():
            shutil.copy(file, folder / file.name)
    if done.exists() and done.read_bytes() == locked:
        return folder
    try:
        found = subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1",
                                "--fetch-timeout=30000"], cwd=folder, text=True, capture_output=True,
                               timeout=NPM_PATIENCE)
    except subprocess.TimeoutExpired:
        raise unittest.SkipTest(f"npm did not install them within {NPM_PATIENCE} s") from None
    if found.returncode != 0:
        raise unittest.SkipTest("npm could not install them: " + (found.stderr.strip() or "no reason given")[-300:])
    done.write_bytes(locked)
    return folder


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    """Until the condition holds. The patience only passes where it never does."""
    deadline = time.monotonic() + seconds * SLOW
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * SLOW:.0f} s: {what}")
        time.sleep(0.02)


# Context and length of a generation that goes on until somebody ends it, however quick the machine.
ENDLESS = 100_000


def endless(checkpoint: pathlib.Path) -> None:
    """Lets a (small) checkpoint of one's own generate ENDLESS tokens."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    path.unlink()  # the copy may be read-only
    path.write_text(json.dumps({**config, "max_position_embeddings": ENDLESS + 1000}))


def read_safetensors(path: pathlib.Path) -> dict[str, list[Any]]:
    """Tensors as flat lists (F32 and I64 only: what the goldens hold), with shapes under '#name'."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    out: dict[str, list[Any]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        code = {"F32": "f", "I64": "q"}[entry["dtype"]]
        raw = data[8 + length + begin:8 + length + end]
        out[name] = list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
        out["#" + name] = entry["shape"]
    return out


def lives(task: pathlib.Path) -> bool:
    """Whether a thread of /proc has not begun to end: one that was joined stays listed a moment."""
    try:
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return fields[0] not in "ZX" and int(fields[6]) & 0x4 == 0  # PF_EXITING


class Daemon:
    """A chimerad of its own: config, sockets and state under one temporary directory."""

    def __init__(self, backbone: pathlib.Path, *, modules: list[dict[str, Any]] | None = None,
                 precision: str = "f32", work: pathlib.Path | None = None, threads: int = 1,
                 serve: dict[str, Any] | None = None, watch: list[str] | None = None,
                 top_k: int | None = None, memory: dict[str, str] | None = None,
                 start: bool = True, one_heap: bool = False,
                 descriptors: tuple[int, int] | None = None, address_space: int | None = None,
                 log_level: str = "info", log_format: str = "text",
                 chat_template: pathlib.Path | None = None,
                 control: str | None = None, security: dict[str, str] | None = None,
                 client_options: dict[str, Any] | None = None,
                 trust: dict[str, Any] | None = None, in_process: bool = False,
                 libraries: dict[str, Any] | None = None,
                 canary: dict[str, Any] | None = None) -> None:
        """`descriptors`: soft and hard limit of open files. `address_space`: bytes of it. `control`:
        endpoint, as serve["endpoint"]; `client_options`: of all clients, e.g. their keys."""
        self.client_options = client_options or {}
        self.limits = {name: limit for name, limit in
                       ((resource.RLIMIT_NOFILE, descriptors),
                        (resource.RLIMIT_AS, address_space and (address_space, address_space)))
                       if limit}
        self.log_options = ["--log-level", log_level, "--log-format", log_format]
        self.endless = (serve or {}).get("max_context", 0) >= ENDLESS
        # For those that count mappings: how many heaps glibc opens depends on which threads happen
        # to allocate at the same moment.
        self.environment = {**os.environ, **({"MALLOC_ARENA_MAX": "1"} if one_heap else {})}
        self.own = work is None
        self.work = work or pathlib.Path(tempfile.mkdtemp(prefix="chimera-test-"))
        self.serve_endpoint = (serve or {}).get("endpoint", f"ipc://{self.work}/serve.sock")
        self.control_endpoint = control or f"ipc://{self.work}/control.sock"
        # A tiny model fills what may wait by default while Python does something else.
        many = (serve or {}).get("max_sequences", 32) > 64  # their memory is set apart
        reading = {"max_events": 4096} if self.endless and not many else {}
        composition: dict[str, Any] = {"modules": modules or []}
        if top_k is not None:
            composition["top_k"] = top_k
        config: dict[str, Any] = {
            "chimera": "deployment/1",
            "backbone": {"path": str(backbone), "precision": precision},
            "composition": composition,
            "serve": {"endpoint": self.serve_endpoint, "max_sequences": 32, "max_context": 512,
                      **reading, **(serve or {})},
            "control": {"endpoint": self.control_endpoint},
            "state": str(self.work / "state"),
            "threads": threads,
        }
        if chat_template:
            config["backbone"]["chat_template"] = str(chat_template)
        if memory:
            config["memory"] = memory
        if watch:
            config["watch"] = watch
        if security:
            config["security"] = security
        if trust:
            config["trust"] = trust
        if canary:
            config["canary"] = canary
        # Modules of builds that are slow ask for more than the usual.
        config["libraries"] = {"max_deadline_ms": int(2000 * SLOW), **(libraries or {})}
        if in_process:
            config["libraries"]["in_process"] = "allow"
        self.config = self.work / "deployment.yaml"
        self.config.write_text(json.dumps(config, indent=1))  # JSON is YAML
        self.log = self.work / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        if start:
            self.start()

    def start(self, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "chimerad", "--config", self.config, *self.log_options],
                stdout=log, stderr=log, env=self.environment,
                preexec_fn=self.prepare)
        if wait:
            self.wait_ready()

    def prepare(self) -> None:
        """In the child, before it becomes the daemon."""
        for name, limit in self.limits.items():
            resource.setrlimit(name, limit)
        if self.endless:
            # A tiny model makes tokens faster than a busy machine lets Python read them, and a
            # stream that is read too slowly ends: where both want the CPU, the reader goes first.
            os.nice(10)

    def wait_ready(self, timeout: float = 60.0) -> None:
        assert self.process is not None
        deadline = time.monotonic() + timeout * SLOW
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"chimerad exited {self.process.returncode}\n{self.log_text()}")
            try:
                with self.client(connect_timeout=1.0) as client:
                    client.health()
                    return
            except chimera_client.ChimeraError:
                time.sleep(0.01)
        raise AssertionError(f"chimerad not ready after {timeout * SLOW} s\n{self.log_text()}")

    def client(self, **options: Any) -> chimera_client.Client:
        return chimera_client.Client(serve=self.serve_endpoint, control=self.control_endpoint,
                                     **{**self.client_options, **options})

    def cli(self, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return run("chimera", "--endpoint", self.serve_endpoint, "--control", self.control_endpoint,
                   *args, **kwargs)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")[-8000:] if self.log.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60 * SLOW)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"no exit 60 s after SIGTERM\n{self.log_text()}") from None
        self.check_sanitizers()
        return self.process.returncode

    def check_sanitizers(self) -> None:
        """A sanitizer's report is a failure whatever the exit status says."""
        text = self.log.read_text(errors="replace")
        for report in ("ThreadSanitizer", "AddressSanitizer", "LeakSanitizer", "runtime error:"):
            assert report not in text, text[max(0, text.index(report) - 200):][:12000]

    def resources(self) -> dict[str, int]:
        """Resident KiB, descriptors, mappings and threads of the daemon."""
        proc = pathlib.Path("/proc") / str(self.pid)
        # Page by page: VmRSS in "status" is summed up lazily, off by 128 KiB per CPU and more.
        rss = next(int(line.split()[1]) for line in (proc / "smaps_rollup").read_text().splitlines()
                   if line.startswith("Rss:"))
        return {"rss_kib": rss, "fds": len(list((proc / "fd").iterdir())),
                "maps": len((proc / "maps").read_text().splitlines()),
                "threads": sum(1 for task in (proc / "task").iterdir() if lives(task))}

    def grown(self, before: dict[str, int], allowed: dict[str, int],
              seconds: float = 60.0) -> dict[str, int]:
        """What the resources are above `before`, once those named in `allowed` are within it: what
        is only on its way out gets the time, what leaks stays."""
        deadline = time.monotonic() + seconds * SLOW
        while True:
            now = self.resources()
            growth = {key: now[key] - before[key] for key in before}
            if all(growth[key] <= bound for key, bound in allowed.items()) or \
                    time.monotonic() > deadline:
                return growth
            time.sleep(0.05)

    def growth(self, run: Callable[[], object], allowed: dict[str, int]) -> dict[str, int]:
        """What `run` leaves above what was there: the first of four runs within `allowed`, else the
        last one. A leak is there each time; what an allocator or a thread takes once is not."""
        for _ in range(4):
            before = self.resources()
            run()
            growth = self.grown(before, allowed, seconds=15)
            if all(growth[key] <= bound for key, bound in allowed.items()):
                break
        return growth

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process is not None and self.process.poll() is None:
            if exc[0] is None:
                code = self.stop()
                assert code == 0, f"exit status {code} after SIGTERM\n{self.log_text()}"
            else:
                self.kill()
                print(self.log_text(), file=sys.stderr)
        if self.own:
            shutil.rmtree(self.work, ignore_errors=True)


class Values(list):
    """A long list of numbers: where two differ, unittest compares plain lists line by line, which
    takes it a quarter of an hour for the logits of a prompt."""


def flat(logits: Any) -> Values:
    """Logits as one list, whether the client gave a NumPy array or array('f')."""
    return Values(logits.ravel().tolist() if hasattr(logits, "ravel") else logits)


class Reader(threading.Thread):
    """Reads a stream to its end, from the only thread of its client.

    A stream that nobody reads for a while is ended as read too slowly, and a tiny model fills what
    may wait (`serve.max_events`, and as much in the connection) in a moment.
    """

    def __init__(self, client: chimera_client.Client, **request: Any) -> None:
        super().__init__()
        self.client, self.request = client, request
        self.epochs: list[int] = []  # of every token
        self.done: dict = {}
        self.problem: chimera_client.ChimeraError | None = None
        self.stopped = threading.Event()
        self.start()
        wait_for(lambda: self.count > 0 or self.problem, "the first token")

    def run(self) -> None:
        try:
            generation = self.client.generate(**self.request)
            for token in generation:
                self.epochs.append(token.epoch)
                if self.stopped.is_set():
                    self.stopped.clear()
                    generation.cancel()
            self.done = generation.done
        except chimera_client.ChimeraError as problem:
            self.problem = problem

    @property
    def count(self) -> int:
        return len(self.epochs)

    def more(self, least: int = 3) -> None:
        """Waits for further tokens."""
        count = self.count
        wait_for(lambda: self.count > count + least or self.problem, "further tokens")

    def stop(self) -> None:
        self.stopped.set()
        self.join(60 * SLOW)
