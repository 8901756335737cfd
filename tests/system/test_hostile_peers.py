"""Peers that speak ZMTP themselves, and what they may not do to the daemon and to others."""
from __future__ import annotations

import ctypes
import resource
import socket
import struct
import time
import unittest

import zmq

from harness import GOLDEN, SLOW, Daemon, chimera_client

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)


def ready(routing_id: bytes) -> bytes:
    """The READY command of a DEALER that chooses its own routing id."""
    body = b"\x05READY"
    for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", routing_id)):
        body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return b"\x04" + bytes([len(body)]) + body


def connect(endpoint: str) -> socket.socket:
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc":
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(address)
    else:
        host, _, port = address.rpartition(":")
        peer = socket.create_connection((host, int(port)))
    peer.settimeout(10 * SLOW)
    return peer


def shake_hands(endpoint: str, routing_id: bytes) -> socket.socket:
    peer = connect(endpoint)
    peer.sendall(GREETING)
    got = b""
    while len(got) < 64:
        part = peer.recv(64 - len(got))
        if not part:
            break
        got += part
    peer.sendall(ready(routing_id))
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


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class HostilePeers(unittest.TestCase):
    def claim_the_next_ids(self, daemon: Daemon, endpoint: str) -> None:
        peers = [shake_hands(endpoint, claimed) for claimed in automatic_ids(4, 16)]
        try:
            # Who takes the numbers in turn meets the claimed ones.
            for _ in range(20):
                with daemon.client(connect_timeout=20.0 * SLOW) as client:
                    self.assertEqual(client.health()["status"], "ok")
                    client.stats()
            self.assertIsNone(daemon.process.poll(), daemon.log_text())
            for peer in peers:
                self.assertTrue(ended(peer), "a peer with a routing id of its own is connected")
        finally:
            for peer in peers:
                peer.close()

    def test_nobody_takes_the_routing_id_of_the_next_client(self) -> None:
        port = free_port()
        for serve in ({}, {"endpoint": f"tcp://127.0.0.1:{port}"}):
            with self.subTest(serve=serve), Daemon(GOLDEN / "flex_olmo_f32", serve=serve, start=False) as daemon:
                if serve:
                    daemon.serve_endpoint = serve["endpoint"]
                daemon.start()
                self.claim_the_next_ids(daemon, daemon.serve_endpoint)
                self.claim_the_next_ids(daemon, daemon.control_endpoint)

    def test_ordinary_peers_with_an_identity_are_told_no(self) -> None:
        with Daemon(GOLDEN / "flex_olmo_f32") as daemon:
            context = zmq.Context()
            peer = context.socket(zmq.DEALER)
            peer.setsockopt(zmq.LINGER, 0)
            peer.setsockopt(zmq.IDENTITY, b"me")
            peer.connect(daemon.serve_endpoint)
            peer.send_multipart([b"CHIMERA/1", b'{"id":"1","call":"health"}'])
            self.assertEqual(peer.poll(1000), 0)
            peer.close()
            context.term()
            with daemon.client() as client:
                self.assertEqual(client.health()["status"], "ok")

    def test_protocols_without_a_handshake_are_refused(self) -> None:
        with Daemon(GOLDEN / "flex_olmo_f32") as daemon:
            version_1 = bytes([6, 0]) + automatic_ids(4, 1)[0]  # a frame with the routing id, at once
            version_2 = b"\xff" + bytes(7) + b"\x01\x7f" + b"\x01" + b"\x05" + b"\0\5" + automatic_ids(4, 1)[0]
            for greeting in (version_1, version_2):
                peer = connect(daemon.serve_endpoint)
                peer.sendall(greeting)
                self.assertTrue(ended(peer))
                peer.close()
            with daemon.client() as client:
                self.assertEqual(client.health()["status"], "ok")


    def own_limit(self, needed: int) -> None:
        """Lets this process open that many descriptors."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < needed:
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

    def test_more_silent_connections_than_there_are_descriptors(self) -> None:
        self.own_limit(2048)
        with Daemon(GOLDEN / "flex_olmo_f32", descriptors=(512, 512)) as daemon:
            peers, refused = [], 0
            for i in range(900):
                try:
                    peers.append(connect(daemon.serve_endpoint))
                except (ConnectionError, FileNotFoundError):
                    refused += 1
                time.sleep(0.005 if i % 10 == 0 else 0)
            self.assertGreater(refused, 0)
            self.assertIsNone(daemon.process.poll(), daemon.log_text())
            with daemon.client() as client:
                self.assertTrue(client.stats()["server"])  # control has connections of its own
            with daemon.client(connect_timeout=30.0 * SLOW) as client:
                self.assertEqual(client.health()["status"], "ok")
            self.assertIn("connections_full", daemon.log_text())
            for peer in peers:
                peer.close()


if __name__ == "__main__":
    unittest.main()
