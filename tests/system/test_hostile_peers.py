"""Peers that connect and say nothing, and what they may not do to the daemon and to others."""
from __future__ import annotations

import resource
import socket
import unittest

from harness import GOLDEN, SLOW, Daemon


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


class HostilePeers(unittest.TestCase):
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


if __name__ == "__main__":
    unittest.main()
