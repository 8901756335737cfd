#!/usr/bin/env python3
"""What chimera-gateway adds to a stream, and what streams, idle connections and slow readers cost it.

    bench/gateway_load.py [--build DIR] [--streams 2000] [--idle 10000] [--slow 50] [--rate 1] [--seconds 10]
                          [--rounds 1]

The daemon is a program of its own that answers every request with the time at which it sent each event, so
that what arrives says how long it was under way. It is read twice at the same pace: over ZeroMQ, and over
HTTP through the gateway; the difference is what the gateway adds. The reader is this program: where it is
itself late, both figures are. Needs python3-zmq, and as many descriptors as connections (`ulimit -n`).
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import pathlib
import re
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import zmq

ROOT = pathlib.Path(__file__).resolve().parent.parent
SENT = re.compile(rb'"text": ?"(\d+) x*"')
PATIENCE = 60.0  # seconds, for what has to come
PER_LANE = 64  # requests of one connection to a daemon (clients/PROTOCOL.md)
DONE = {"event": "done", "finish_reason": "length",
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cached_tokens": 0},
        "timing": {"queue_ms": 0, "prefill_ms": 0, "decode_ms": 0},
        "provenance": {"epoch": 3, "composition": "sha256:" + "ab" * 32, "backbone": {"share": 1}, "modules": {}}}


def serve(endpoints: list[str], orders: multiprocessing.connection.Connection) -> None:
    """A daemon whose streams go on as it is told: ("pace", seconds between two events of a stream), ("burst",
    events, bytes, prompt) to those that began with that prompt, ("end",) all; ("count",) answers (streams,
    cancelled)."""
    context = zmq.Context()
    sockets = [context.socket(zmq.ROUTER) for _ in endpoints]
    poller = zmq.Poller()
    for router, endpoint in zip(sockets, endpoints):
        router.sndhwm = router.rcvhwm = router.linger = 0
        router.bind(endpoint)
        poller.register(router, zmq.POLLIN)
    poller.register(orders.fileno(), zmq.POLLIN)
    streams: dict[tuple[bytes, str], str] = {}  # -> its prompt
    cancelled, pace, due = 0, 0.0, time.monotonic()

    def send(peer: bytes, request: str, event: dict[str, Any]) -> None:
        sockets[0].send_multipart([peer, b"CHIMERA/1", json.dumps({"id": request, **event}).encode()])

    def token(key: tuple[bytes, str], padding: int = 0) -> None:
        send(*key, {"event": "token", "text": f"{time.monotonic_ns()} {'x' * padding}", "token": 1, "epoch": 3})

    def take(router: Any) -> None:
        nonlocal cancelled
        peer, _, body = router.recv_multipart()
        request = json.loads(body)
        if request["call"] == "cancel":
            target = (peer, request.get("target", ""))
            if streams.pop(target, None) is not None:
                cancelled += 1
                send(*target, {**DONE, "finish_reason": "cancelled"})
        elif request.get("stream"):
            streams[peer, request["id"]] = request["prompt"]
            token((peer, request["id"]))
        else:
            router.send_multipart([peer, b"CHIMERA/1", json.dumps({"id": request["id"], **DONE}).encode()])

    waiting: list[tuple[bytes, str]] = []  # whose turn comes in this round
    while True:
        left = max(0, int((due - time.monotonic()) * 1000)) if pace and streams else 100
        for ready, _ in poller.poll(left):
            if ready != orders.fileno():
                for _ in range(64):
                    if not ready.poll(0):
                        break
                    take(ready)
                continue
            order, *given = orders.recv()
            if order == "stop":
                context.destroy(0)
                return
            if order == "pace":
                pace, due = given[0], time.monotonic()
            if order == "count":
                orders.send((len(streams), cancelled))
            if order == "burst":
                events, padding, prompt = given
                for key in [key for key, asked in streams.items() if asked == prompt]:
                    for _ in range(events):
                        token(key, padding)
            if order == "end":
                for key in streams:
                    send(*key, DONE)
                streams.clear()
        while pace and streams and time.monotonic() >= due:
            if not waiting:
                waiting = list(streams)
            key = waiting.pop()
            if key in streams:
                token(key)
            due += pace / len(streams)


class Daemon:
    def __init__(self, directory: str) -> None:
        self.endpoints = [f"ipc://{directory}/{name}" for name in ("serve", "control")]
        self.orders, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(target=serve, args=(self.endpoints, theirs),
                                                                     daemon=True)
        self.process.start()

    def order(self, *what: Any) -> None:
        self.orders.send(what)

    def count(self) -> tuple[int, int]:
        self.order("count")
        return self.orders.recv()

    def stop(self) -> None:
        self.order("stop")
        self.process.join(PATIENCE)


class Gateway:
    def __init__(self, build: pathlib.Path, directory: str, daemon: Daemon) -> None:
        path = pathlib.Path(directory)
        config = {"chimera": "gateway/1", "listen": "127.0.0.1:0",
                  "daemon": dict(zip(("serve", "control"), daemon.endpoints)),
                  "admin_key": str(path / "state" / "admin.key"), "limits": {"connections": 1_000_000}}
        self.log = (path / "gateway.log").open("w+")
        (path / "gateway.yaml").write_text(json.dumps(config))
        self.process = subprocess.Popen([build / "bin" / "chimera-gateway", "--config", path / "gateway.yaml"],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split(":")[2].split("/")[0])
        self.key = (path / "state" / "admin.key").read_text().strip()

    def rss_kib(self) -> int:
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Rss:"))

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        peer = socket.socket()
        if receive_buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        peer.settimeout(PATIENCE)
        peer.connect(("127.0.0.1", self.port))
        return peer

    def ask(self, peer: socket.socket, prompt: str) -> None:
        """Begins a stream."""
        body = json.dumps({"model": "demo", "prompt": prompt, "stream": True, "max_tokens": 1_000_000})
        peer.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
                     f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Reader:
    """Reads many streams, and notes of each event how long it was under way, in microseconds."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.latencies: list[float] = []
        self.events: dict[Any, int] = {}
        self.ended: set[Any] = set()

    def note(self, source: Any, data: bytes) -> None:
        now = time.monotonic_ns()
        for sent in SENT.findall(data):
            self.latencies.append((now - int(sent)) / 1000)
            self.events[source] = self.events.get(source, 0) + 1

    def add_http(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        rest = b""

        def ready() -> None:
            nonlocal rest
            try:
                data = peer.recv(1 << 16)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data or b"data: [DONE]" in data:
                self.ended.add(peer)
                self.selector.unregister(peer)
                return
            whole, end, rest = (rest + data).rpartition(b"\n\n")
            self.note(peer, whole + end)

        self.selector.register(peer, selectors.EVENT_READ, ready)
        self.events[peer] = 0

    def add_zmq(self, dealer: Any) -> None:
        def ready() -> None:
            try:
                while True:
                    self.note(dealer, dealer.recv_multipart(zmq.NOBLOCK)[-1])
            except zmq.Again:
                pass

        self.selector.register(dealer.FD, selectors.EVENT_READ, ready)
        self.events[dealer] = 0
        ready()  # its descriptor tells changes alone

    def run(self, until: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Reads until it holds; false when that took too long."""
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                return False
            for key, _ in self.selector.select(0.02):
                key.data()
        return True

    def percentiles(self) -> tuple[float, float]:
        values = sorted(self.latencies)
        return values[len(values) // 2], values[min(len(values) - 1, len(values) * 99 // 100)]


class Load:
    """A daemon, a gateway before it, and their readers."""

    def __init__(self, build: pathlib.Path) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="chimera-load-")
        self.daemon = Daemon(self.directory.name)
        try:
            self.gateway = Gateway(build, self.directory.name, self.daemon)
        except BaseException:
            self.daemon.stop()
            raise

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *exc: object) -> None:
        self.gateway.stop()
        self.daemon.stop()
        self.directory.cleanup()

    def open_streams(self, count: int, reader: Reader, prompt: str = "steady") -> list[socket.socket]:
        """As many streams, each of which has had an event."""
        peers = []
        for _ in range(count):
            peer = self.gateway.connect()
            self.gateway.ask(peer, prompt)
            reader.add_http(peer)
            peers.append(peer)
        if not reader.run(lambda: all(reader.events[peer] for peer in peers)):
            raise RuntimeError(f"of {count} streams {sum(1 for p in peers if reader.events[p])} began")
        return peers

    def measure(self, reader: Reader, pace: float, seconds: float) -> tuple[float, float]:
        self.daemon.order("pace", pace)
        reader.run(lambda: False, 1.0)  # until it goes on evenly
        reader.latencies.clear()
        reader.run(lambda: False, seconds)
        found = reader.percentiles()
        self.daemon.order("pace", 0.0)
        reader.run(lambda: False, 0.2)
        return found

    def end(self, peers: list[socket.socket], reader: Reader) -> None:
        self.daemon.order("end")
        reader.run(lambda: all(peer in reader.ended for peer in peers))
        for peer in peers:
            peer.close()

    def direct(self, count: int, pace: float, seconds: float) -> tuple[float, float]:
        """The same streams without a gateway."""
        reader, context = Reader(), zmq.Context()
        context.set(zmq.MAX_SOCKETS, 4096)
        for begin in range(0, count, PER_LANE):
            dealer = context.socket(zmq.DEALER)
            dealer.linger = dealer.rcvhwm = 0
            dealer.connect(self.daemon.endpoints[0])
            for i in range(begin, min(begin + PER_LANE, count)):
                request = {"id": str(i), "call": "generate", "prompt": "direct", "stream": True}
                dealer.send_multipart([b"CHIMERA/1", json.dumps(request).encode()])
            reader.add_zmq(dealer)
        if not reader.run(lambda: sum(reader.events.values()) >= count):
            raise RuntimeError("the daemon's stand-in does not answer")
        found = self.measure(reader, pace, seconds)
        self.daemon.order("end")
        context.destroy(0)
        return found

    def cut_off(self, count: int, reader: Reader) -> int:
        """As many streams that nobody reads, and each has much to say: how many were cancelled."""
        before = self.daemon.count()[1]
        peers = [self.gateway.connect(receive_buffer=4096) for _ in range(count)]
        streams = self.daemon.count()[0]
        for peer in peers:
            self.gateway.ask(peer, "slow")
        reader.run(lambda: self.daemon.count()[0] == streams + count)
        cut = 0
        for burst in range(100):  # 64 KiB of each time, beyond what may wait
            self.daemon.order("burst", 16, 4096, "slow")
            end = time.monotonic() + (PATIENCE if burst == 99 else 0.3)
            while cut < count and time.monotonic() < end:
                reader.run(lambda: False, 0.1)
                cut = self.daemon.count()[1] - before
            if cut == count:
                break
        for peer in peers:
            peer.close()
        return cut


def descriptors(wanted: int) -> int:
    """So many connections this program may have, at most `wanted`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except ValueError:  # more than the kernel grants a process
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=50)
    parser.add_argument("--rate", type=float, default=1.0, help="events a second of one stream")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1, help="of both, by turns; the median counts")
    asked = parser.parse_args()
    streams, idle = descriptors(asked.streams), descriptors(asked.idle)
    with Load(asked.build) as load:
        pace = 1 / asked.rate
        reader = Reader()
        load.end(load.open_streams(8, reader), reader)  # what the first streams bring along once
        peers: list[socket.socket] = []
        added: list[tuple[float, float]] = []
        print(f"{streams} streams of {asked.rate:g} events/s, us on their way:")
        for turn in range(asked.rounds):
            load.end(peers, reader)
            direct = load.direct(streams, pace, asked.seconds)
            before = load.gateway.rss_kib()
            peers = load.open_streams(streams, reader)
            each = (load.gateway.rss_kib() - before) / streams
            through = load.measure(reader, pace, asked.seconds)
            added.append((through[0] - direct[0], through[1] - direct[1]))
            print(f"  p50 {direct[0]:.0f}, p99 {direct[1]:.0f} from the daemon; "
                  f"p50 {through[0]:.0f}, p99 {through[1]:.0f} through the gateway" +
                  ("" if turn else f", {each:.1f} KiB a stream"), flush=True)
        for name, values in zip(("p50", "p99"), zip(*added)):
            ordered = sorted(values)
            print(f"  added to the {name}: {ordered[len(ordered) // 2]:+.0f} ({ordered[0]:+.0f} to {ordered[-1]:+.0f})")
        load.daemon.order("pace", pace)
        reader.latencies.clear()
        gone = load.cut_off(asked.slow, reader)
        beside = reader.percentiles()
        print(f"  beside {asked.slow} that nobody reads ({gone} cut off): p50 {beside[0]:.0f}, p99 {beside[1]:.0f}")
        load.end(peers, reader)
        before = load.gateway.rss_kib()
        silent = [load.gateway.connect() for _ in range(idle)]
        peers = load.open_streams(16, reader)
        print(f"{idle} idle connections: {(load.gateway.rss_kib() - before) / max(idle, 1):.1f} KiB each, "
              f"and 16 streams beside them begin")
        load.end(peers, reader)
        for peer in silent:
            peer.close()


if __name__ == "__main__":
    sys.exit(main())
