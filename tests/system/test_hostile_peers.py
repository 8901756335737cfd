"""Peers that connect and say nothing, or speak ZMTP themselves, and what they may not do to the
daemon and to others."""
from __future__ import annotations

import ctypes
import resource
import socket
import struct
import tempfile
import time
import unittest
from pathlib import Path

import zmq
import zmq.auth

from harness import GOLDEN, MEASURES_MEMORY, SLOW, Daemon, chimera_client, run

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def connect(endpoint: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(endpoint.removeprefix("ipc://"))
    peer.settimeout(60 * SLOW)
    return peer


def ended(peer: socket.socket) -> bool:
    """Whether the daemon closes the connection (after what it has to say)."""
    try:
        while peer.recv(4096):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def shake_hands(endpoint: str, routing_id: bytes) -> socket.socket:
    """A DEALER that chooses its own routing id."""
    peer = connect(endpoint)
    peer.sendall(GREETING)
    got = b""
    while len(got) < 64 and (part := peer.recv(64 - len(got))):
        got += part
    body = b"\x05READY"
    for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", routing_id)):
        body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    peer.sendall(b"\x04" + bytes([len(body)]) + body)
    return peer


def automatic_ids(sockets: int, each: int) -> list[bytes]:
    """The routing ids that libzmq gives to the first `each` peers of a process's first ROUTERs: it
    numbers from a random start, and never seeds the generator."""
    libc = ctypes.CDLL(None)
    libc.srand(1)
    starts = []
    for _ in range(sockets):
        low, high = libc.rand(), libc.rand()
        starts.append((low | (high << 31)) & 0xFFFFFFFF)
    return [b"\0" + struct.pack(">I", (start + i) & 0xFFFFFFFF) for start in starts for i in range(each)]


class HostilePeers(unittest.TestCase):
    def own_limit(self, needed: int) -> None:
        """Lets this process open that many descriptors."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < needed:
            self.skipTest(f"this system grants {hard} descriptors (the test needs {needed})")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def test_more_silent_connections_than_the_soft_limit(self) -> None:
        self.own_limit(4096)
        with Daemon(GOLDEN / "flex_olmo_f32", descriptors=(256, 4096)) as daemon:
            peers = [connect(daemon.serve_endpoint) for _ in range(600)]
            with daemon.client() as client:
                self.assertEqual(client.health()["status"], "ok")
            self.assertIsNone(daemon.process.poll(), daemon.log_text())
            # Who says nothing for 5 s is gone.
            self.assertTrue(all(ended(peer) for peer in peers))
            for peer in peers:
                peer.close()

    def test_more_connections_than_the_hard_limit(self) -> None:
        self.own_limit(4096)
        with Daemon(GOLDEN / "flex_olmo_f32", descriptors=(512, 512)) as daemon, \
                daemon.client() as served:
            served.health(), served.stats()
            peers = []
            for endpoint in (daemon.serve_endpoint, daemon.control_endpoint):
                for _ in range(600):
                    peers.append(connect(endpoint))
            # Who is there is served, and who comes when the others are gone.
            self.assertEqual(served.health()["status"], "ok")
            served.stats()
            self.assertLess(daemon.resources()["fds"], 512)
            self.assertTrue(all(ended(peer) for peer in peers))
            for peer in peers:
                peer.close()
            with daemon.client(connect_timeout=30.0) as client:
                self.assertEqual(client.health()["status"], "ok")
            self.assertIsNone(daemon.process.poll(), daemon.log_text())

    def test_nobody_takes_the_routing_id_of_the_next_client(self) -> None:
        with Daemon(GOLDEN / "flex_olmo_f32") as daemon:
            for endpoint in (daemon.serve_endpoint, daemon.control_endpoint):
                peers = [shake_hands(endpoint, claimed) for claimed in automatic_ids(4, 16)]
                # Who takes the numbers in turn would meet the claimed ones.
                for _ in range(20):
                    with daemon.client(connect_timeout=20.0 * SLOW) as client:
                        self.assertEqual(client.health()["status"], "ok")
                        client.stats()
                self.assertIsNone(daemon.process.poll(), daemon.log_text())
                for peer in peers:
                    peer.close()

    def test_nor_does_one_with_a_key(self) -> None:
        with tempfile.TemporaryDirectory(prefix="chimera-hostile-") as scratch:
            for name in ("server", "alice"):
                run("chimera", "key", "new", name, "--out", scratch)
            public, secret = zmq.auth.load_certificate(f"{scratch}/alice.key")
            server, _ = zmq.auth.load_certificate(f"{scratch}/server.pub")
            clients = Path(scratch) / "clients.yaml"
            clients.write_text("chimera: clients/1\nclients:\n  - {name: alice, roles: [admin], modules: "
                               f"all, public_key: '{public.decode()}'}}\n")
            with socket.socket() as one, socket.socket() as two:
                one.bind(("127.0.0.1", 0)), two.bind(("127.0.0.1", 0))
                ports = [s.getsockname()[1] for s in (one, two)]
            keys = {"key": f"{scratch}/alice.key", "server_key": f"{scratch}/server.pub"}
            with Daemon(GOLDEN / "flex_olmo_f32", serve={"endpoint": f"tcp://127.0.0.1:{ports[0]}"},
                        control=f"tcp://127.0.0.1:{ports[1]}", client_options=keys,
                        security={"key": f"{scratch}/server.key", "clients": str(clients)}) as daemon, \
                    zmq.Context() as context:
                claims = []
                for claimed in automatic_ids(4, 16):
                    dealer = context.socket(zmq.DEALER)
                    dealer.linger = 0
                    dealer.routing_id = claimed
                    dealer.curve_publickey, dealer.curve_secretkey = public, secret
                    dealer.curve_serverkey = server
                    dealer.connect(daemon.serve_endpoint)
                    dealer.send_multipart([b"CHIMERA/1", b'{"id":"1","call":"health"}'])
                    claims.append(dealer)
                for dealer in claims:  # an id of one's own counts for nothing, and does no harm
                    self.assertTrue(dealer.poll(60_000 * SLOW))
                for _ in range(20):
                    with daemon.client(connect_timeout=20.0 * SLOW) as client:
                        self.assertEqual(client.health()["status"], "ok")
                self.assertIsNone(daemon.process.poll(), daemon.log_text())
                for dealer in claims:
                    dealer.close()

    def test_an_id_of_ones_own_counts_for_nothing(self) -> None:
        with Daemon(GOLDEN / "flex_olmo_f32") as daemon, zmq.Context() as context:
            peers = []
            for _ in range(2):  # the same one twice: libzmq alone would ignore the second
                peer = context.socket(zmq.DEALER)
                peer.linger = 0
                peer.routing_id = b"me"
                peer.connect(daemon.serve_endpoint)
                peer.send_multipart([b"CHIMERA/1", b'{"id":"1","call":"health"}'])
                peers.append(peer)
            for peer in peers:
                self.assertTrue(peer.poll(60_000 * SLOW))
                peer.close()

    def test_protocols_without_a_handshake_are_refused(self) -> None:
        with Daemon(GOLDEN / "flex_olmo_f32") as daemon:
            claimed = automatic_ids(4, 1)[0]
            version_1 = bytes([6, 0]) + claimed  # a frame with the routing id, at once
            version_2 = b"\xff" + bytes(7) + b"\x01\x7f\x01\x05\0\5" + claimed
            for greeting in (version_1, version_2, b"GET / HTTP/1.1\r\n\r\n"):
                peer = connect(daemon.serve_endpoint)
                peer.sendall(greeting)
                self.assertTrue(ended(peer))
                peer.close()
            with daemon.client() as client:
                self.assertEqual(client.health()["status"], "ok")

    def test_a_peer_that_sends_and_never_reads_costs_little(self) -> None:
        with Daemon(GOLDEN / "flex_olmo_f32") as daemon, daemon.client() as client:
            peer = shake_hands(daemon.serve_endpoint, b"")
            peer.settimeout(0.5)
            body = b'{"id":"1","call":"info"}'
            message = b"\x01\x09CHIMERA/1" + b"\x00" + bytes([len(body)]) + body
            try:
                for _ in range(20_000):
                    peer.sendall(message)
            except (TimeoutError, ConnectionError):
                pass  # it is not read any more, or ended
            began = time.monotonic()
            self.assertEqual(client.health()["status"], "ok")
            self.assertLess(time.monotonic() - began, 60 * SLOW)
            peer.close()

    def flood(self, endpoint: str, frame: bytes, most: int) -> int:
        """Sends a frame over and over until `most` bytes went or nothing is taken any more."""
        peer = shake_hands(endpoint, b"")
        self.addCleanup(peer.close)
        peer.settimeout(2)
        batch = frame * max(1, (1 << 16) // len(frame))
        sent = 0
        try:
            while sent < most:
                sent += peer.send(batch)
        except (TimeoutError, ConnectionError):
            pass
        return sent

    def test_messages_without_an_end_are_bounded(self) -> None:
        large = b"\x03" + struct.pack(">Q", 1 << 20) + bytes(1 << 20)  # MORE, LONG
        tiny = b"\x01\x01x"  # costs libzmq much more than it costs the peer
        for frame, most in ((large, 500 << 20), (tiny, 30 << 20)):
            with Daemon(GOLDEN / "flex_olmo_f32") as daemon, daemon.client() as client:
                client.health()
                before = daemon.resources()["rss_kib"]
                sent = [self.flood(daemon.serve_endpoint, frame, most) for _ in range(8)]
                self.assertLess(max(sent), most, "nothing stopped it")
                if MEASURES_MEMORY:
                    self.assertLess(daemon.resources()["rss_kib"] - before, 128 << 10)
                self.assertEqual(client.health()["status"], "ok")
                with daemon.client() as another:
                    self.assertEqual(another.health()["status"], "ok")

    def test_large_messages_of_one_client_hold_up_nobody_else(self) -> None:
        """What is refused is read first, which takes time; the others have their turns between. The
        daemon's log tells in which order it worked, whenever this program was."""
        count = 32
        text = b'{"id":"a","call":"score","nothing":1,"tokens":[' + b"1," * 900_000 + b"1]}"
        with Daemon(GOLDEN / "flex_olmo_f32", log_level="debug") as daemon, daemon.client() as other, \
                zmq.Context() as context, context.socket(zmq.DEALER) as peer:
            other.health()
            peer.linger = 0
            peer.connect(daemon.serve_endpoint)
            for _ in range(count):
                peer.send_multipart([b"CHIMERA/1", text])
            self.assertTrue(peer.poll(60_000 * SLOW))  # the first one was read
            self.assertEqual(other.health()["status"], "ok")
            for _ in range(count):
                self.assertTrue(peer.poll(60_000 * SLOW))
                self.assertIn(b"invalid_argument", peer.recv_multipart()[-1])
            events = [line for line in daemon.log.read_text().splitlines()
                      if "request_refused" in line or "call=health" in line]
            answered = max(i for i, line in enumerate(events) if "request_ended" in line)
            asked = max(i for i, line in enumerate(events[:answered]) if " request " in line)
            # One ended the turn in which it was read.
            self.assertLess(answered - asked, 4, events[asked:answered])

    def test_an_honest_client_sends_more_than_that(self) -> None:
        with Daemon(GOLDEN / "flex_olmo_f32") as daemon, daemon.client() as client:
            for _ in range(20):  # 40 MB, message by message
                with self.assertRaises(chimera_client.ChimeraError):
                    client.complete("x" * 2_000_000)
            self.assertEqual(client.health()["status"], "ok")


if __name__ == "__main__":
    unittest.main()
