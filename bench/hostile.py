#!/usr/bin/env python3
"""What peers that mean harm cost chimerad and those that it serves: slow readers, floods, crowds, deaths.

    bench/hostile.py [--build DIR] [--backbone experts/backbone] [--half-open 10000] [--seconds 5]

Each attack is made on a real daemon over real sockets, beside a client that asks for `health` again and
again. What is printed are the figures of docs/security.md. Needs python3-zmq, and descriptors (`ulimit -n`).
"""
from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq
import zmq.auth

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "clients" / "python"))
import chimera_client  # noqa: E402

PATIENCE = 60.0  # seconds, for what has to come
FORK = multiprocessing.get_context("fork")
CURVE = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
NULL = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
LONG = {"tokens": [1, 2, 3], "ignore_eos": True, "temperature": 0}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Daemon:
    """One that serves over CURVE, or over ipc, and is controlled over ipc."""

    def __init__(self, build: pathlib.Path, backbone: pathlib.Path, curve: bool, **serve: Any) -> None:
        self.bin = build / "bin"
        self.directory = tempfile.TemporaryDirectory(prefix="chimera-hostile-")
        self.work = pathlib.Path(self.directory.name)
        for name in ("server", "alice", "mallory"):
            subprocess.run([self.bin / "chimera", "key", "new", name, "--out", self.work], check=True,
                           stdout=subprocess.DEVNULL)
        self.write_clients(["alice"])
        self.serve = f"tcp://127.0.0.1:{free_port()}" if curve else f"ipc://{self.work}/serve.sock"
        self.control = f"ipc://{self.work}/control.sock"
        config = {"chimera": "deployment/1", "backbone": {"path": str(backbone), "precision": "bf16"},
                  "serve": {"endpoint": self.serve, "max_sequences": 16, "max_context": 1024, **serve},
                  "control": {"endpoint": self.control}, "state": str(self.work / "state"),
                  "security": {"key": str(self.work / "server.key"), "clients": str(self.work / "clients.yaml")}}
        (self.work / "deployment.yaml").write_text(json.dumps(config))
        self.log = (self.work / "log").open("w")
        self.process = subprocess.Popen([self.bin / "chimerad", "--config", self.work / "deployment.yaml"],
                                        stderr=self.log)
        self.admin = chimera_client.Client(serve=self.serve, control=self.control)
        until(lambda: self.ready(), "the daemon serves")

    def write_clients(self, names: list[str]) -> None:
        listed = [{"name": "me", "uid": os.geteuid(), "roles": ["admin"], "modules": "all"}]
        listed += [{"name": name, "public_key": zmq.auth.load_certificate(self.work / f"{name}.pub")[0].decode(),
                    "roles": ["use"], "modules": "all"} for name in names]
        (self.work / "clients.tmp").write_text(json.dumps({"chimera": "clients/1", "clients": listed}))
        (self.work / "clients.tmp").rename(self.work / "clients.yaml")

    def ready(self) -> bool:
        try:
            return bool(self.admin.stats())
        except chimera_client.ChimeraError:
            return False

    def client(self, name: str = "alice", **options: Any) -> chimera_client.Client:
        keys = {"key": str(self.work / f"{name}.key"), "server_key": str(self.work / "server.pub")}
        return chimera_client.Client(serve=self.serve, control=self.control,
                                     **{**(keys if self.serve.startswith("tcp") else {}), **options})

    def connect(self) -> socket.socket:
        if self.serve.startswith("ipc"):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(self.serve.removeprefix("ipc://"))
        else:
            host, port = self.serve.removeprefix("tcp://").split(":")
            peer = socket.create_connection((host, int(port)))
        peer.settimeout(PATIENCE)
        return peer

    def live(self) -> int:
        return self.admin.stats()["engine"]["live"]

    def rss_mib(self) -> float:
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Rss:")) / 1024

    def descriptors(self) -> int:
        return len(list(pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_: object) -> None:
        self.admin.close()
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()
        self.directory.cleanup()


def until(condition: Callable[[], Any], what: str) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE:
            raise SystemExit(f"hostile: not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.005)
    return time.monotonic() - began


def p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


def health_ms(daemon: Daemon, seconds: float) -> list[float]:
    """What `health` of a served client takes, one after the other."""
    out = []
    with daemon.client() as client:
        client.health()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            client.health()
            out.append((time.monotonic() - began) * 1000)
    return out


@contextlib.contextmanager
def meanwhile(work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """`work` in a process of its own, which is ended afterwards."""
    process = FORK.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def half_open(daemon: Daemon, count: int) -> None:
    """So many at a time that begin a handshake and say no more; 2,000 others a second take their place."""
    peers: list[socket.socket] = []
    while True:
        for _ in range(20):
            with contextlib.suppress(OSError):
                peer = daemon.connect()
                peers.append(peer)
                peer.sendall(CURVE[:11])
        for gone in peers[:-count]:
            gone.close()
        del peers[:-count]
        time.sleep(0.01)


def storm(daemon: Daemon, rate: int) -> None:
    """Connects and leaves, so often a second as it is let."""
    due = time.monotonic()
    while True:
        with contextlib.suppress(OSError):
            daemon.connect().close()
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))


def crowds(daemon: Daemon, count: int, seconds: float) -> None:
    quiet = health_ms(daemon, seconds)
    for what, work, arguments in ((f"{count} half-open", half_open, (daemon, count)),
                                  ("5,000 connects a second", storm, (daemon, 5000))):
        with meanwhile(work, *arguments):
            time.sleep(1.0)
            beside = health_ms(daemon, seconds)
            held = daemon.descriptors()
        began = time.monotonic()
        with daemon.client(connect_timeout=PATIENCE) as client:
            client.health()
        print(f"{what}: p99 of health {p99(beside):.2f} ms (quiet {p99(quiet):.2f}, {p99(beside) / p99(quiet):.2f} x), "
              f"{held} descriptors; a new client is served after {time.monotonic() - began:.2f} s", flush=True)


def refused_keys(daemon: Daemon) -> None:
    began = time.monotonic()
    try:
        with daemon.client("mallory") as client:
            client.health()
        raise SystemExit("hostile: a key that nobody listed was served")
    except chimera_client.ChimeraError as problem:
        print(f"a key that is not listed: {problem.code} after {time.monotonic() - began:.3f} s")
    with daemon.client() as alice:
        stream = alice.generate(max_tokens=900, **LONG)
        next(stream)
        daemon.write_clients([])
        began = time.monotonic()
        try:
            for _ in stream:
                pass
            print("a key that is taken out: its stream had ended by then")
        except chimera_client.ChimeraError as problem:
            print(f"a key that is taken out: {problem.code} after {time.monotonic() - began:.2f} s")
    daemon.write_clients(["alice"])
    time.sleep(1.5)


def shake_hands(daemon: Daemon) -> socket.socket:
    peer = daemon.connect()
    peer.sendall(NULL)
    got = b""
    while len(got) < 64:
        got += peer.recv(64 - len(got))
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    peer.sendall(b"\x04" + bytes([len(body)]) + body)
    return peer


def flood(daemon: Daemon, hands: bool) -> int:
    """Parts of a message without an end, from 8 peers: bytes that were taken."""
    part = b"\x03" + struct.pack(">Q", 1 << 20) + bytes(1 << 20)
    sent, peers = 0, []
    for _ in range(8):
        peer = shake_hands(daemon) if hands else daemon.connect()
        peer.settimeout(1)
        peers.append(peer)
        at = 0
        with contextlib.suppress(OSError):
            while sent < 500 << 20:
                taken = peer.send(memoryview(part)[at:])
                at, sent = (at + taken) % len(part), sent + taken
    for peer in peers:
        peer.close()
    return sent


def floods(build: pathlib.Path, backbone: pathlib.Path) -> None:
    for curve, who in ((True, "without a key, over tcp"), (False, "that is admitted, over ipc")):
        with Daemon(build, backbone, curve) as daemon, daemon.client() as client:
            client.health()
            before, most = daemon.rss_mib(), 0.0
            done = threading.Event()
            worst: list[float] = [0.0]

            def watch() -> None:
                while not done.is_set():
                    worst[0] = max(worst[0], daemon.rss_mib())
                    time.sleep(0.02)

            watcher = threading.Thread(target=watch)
            watcher.start()
            sent = flood(daemon, hands=not curve)
            done.set()
            watcher.join()
            most = worst[0] - before
            began = time.monotonic()
            with daemon.client() as another:
                another.health()
            client.health()
            print(f"unfinished messages of a peer {who}: {sent >> 20} MiB taken, memory {most:+.0f} MiB at most; others "
                  f"are served after {time.monotonic() - began:.3f} s", flush=True)


def gaps_ms(daemon: Daemon, tokens: int) -> list[float]:
    out, last = [], 0.0
    with daemon.client() as client:
        for _ in client.generate(max_tokens=tokens, **LONG):
            now = time.monotonic()
            if last:
                out.append((now - last) * 1000)
            last = now
    return out


def slow_reader(build: pathlib.Path, backbone: pathlib.Path) -> None:
    with Daemon(build, backbone, curve=False, max_events=256) as daemon, zmq.Context() as context:
        alone: list[float] = []
        beside: list[float] = []
        ended = 0.0
        for _ in range(3):
            alone += gaps_with(daemon, context, read=True)[0]
            gaps, took = gaps_with(daemon, context, read=False)
            beside += gaps
            ended = max(ended, took)
        print(f"a reader that stops: cut off after {ended:.1f} s; gaps of another stream p99 {p99(beside):.2f} ms "
              f"(beside one that reads {p99(alone):.2f}, {p99(beside) / p99(alone):.2f} x)", flush=True)


def gaps_with(daemon: Daemon, context: zmq.Context, read: bool) -> tuple[list[float], float]:
    """Gaps of a stream beside 8 that are read, or stop after a token; and when the last of these ended."""
    with context.socket(zmq.DEALER) as other:
        other.linger, other.rcvhwm = 0, 0 if read else 1
        other.connect(daemon.serve)
        for i in range(8):
            request = {"id": str(i), "call": "generate", "max_tokens": 900, "stream": True, **LONG}
            other.send_multipart([b"CHIMERA/1", json.dumps(request).encode()])
        other.recv_multipart()
        began = time.monotonic()
        gaps = gaps_ms(daemon, 400)
        if read:
            while daemon.live():
                while other.poll(0):
                    other.recv_multipart()
        else:
            until(lambda: daemon.live() == 0, "streams that nobody reads have ended")
        return gaps, time.monotonic() - began


def ask_again(daemon: Daemon, seconds: float, results: Any) -> None:
    """A client that asks, waits for the whole answer, and asks again at once, also when it was refused."""
    tokens, refused = 0, []
    with daemon.client() as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                tokens += client.complete(max_tokens=24, **LONG)["usage"]["completion_tokens"]
            except chimera_client.ResourceExhausted:
                refused.append((time.monotonic() - began) * 1000)
                time.sleep(0.05)
    results.put((tokens, refused))


def overload(build: pathlib.Path, backbone: pathlib.Path, seconds: float) -> None:
    found = []
    for clients in (16, 64):
        with Daemon(build, backbone, curve=False, max_queue=16) as daemon:
            before = daemon.rss_mib()
            results: Any = FORK.Queue()
            asking = [FORK.Process(target=ask_again, args=(daemon, seconds, results)) for _ in range(clients)]
            for process in asking:
                process.start()
            told = [results.get() for _ in asking]
            for process in asking:
                process.join()
            refused = [ms for _, some in told for ms in some]
            found.append((sum(tokens for tokens, _ in told) / seconds, refused, daemon.rss_mib() - before))
    (peak, _, _), (over, refused, grown) = found
    told = f"{len(refused)} refused, after {statistics.median(refused):.1f} ms (median)" if refused else "none refused"
    print(f"64 clients for 16 places and 16 in the queue: {over:.0f} tokens/s ({over / peak:.2f} of those of 16 clients), "
          f"{told}; memory {grown:+.0f} MiB", flush=True)


def dying_client(daemon: Daemon) -> None:
    with daemon.client() as client:
        next(client.generate(max_tokens=900, **LONG))
        os.kill(os.getpid(), signal.SIGKILL)


def deaths(build: pathlib.Path, backbone: pathlib.Path, count: int = 50) -> None:
    with Daemon(build, backbone, curve=False) as daemon:
        took, before = [], 0.0
        for i in range(count):
            process = FORK.Process(target=dying_client, args=(daemon,))
            process.start()
            process.join()
            took.append(until(lambda: daemon.live() == 0, "the sequence of a client that died has ended"))
            if i == count // 5:
                before = daemon.rss_mib()
        print(f"{count} clients killed in mid-stream: their sequences end after {statistics.median(took) * 1000:.0f} ms "
              f"(worst {max(took) * 1000:.0f}); memory {daemon.rss_mib() - before:+.1f} MiB over the last {count * 4 // 5}",
              flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--backbone", type=pathlib.Path, default=ROOT / "experts" / "backbone")
    parser.add_argument("--half-open", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Daemon(asked.build, asked.backbone, curve=True) as daemon:
        refused_keys(daemon)
        crowds(daemon, asked.half_open, asked.seconds)
    floods(asked.build, asked.backbone)
    slow_reader(asked.build, asked.backbone)
    overload(asked.build, asked.backbone, asked.seconds)
    deaths(asked.build, asked.backbone)


if __name__ == "__main__":
    main()
