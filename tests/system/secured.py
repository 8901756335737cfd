"""Daemons with keys and a clients file, for the tests that need them."""
from __future__ import annotations

import json
import shutil
import socket
import tempfile
import unittest
from pathlib import Path

import zmq.auth

from harness import GOLDEN, Daemon, chimera_client, run

PROMPT = [17, 250, 3, 99, 120, 121, 7, 45, 201, 8, 8, 300, 12]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Keys:
    """A directory of keys and a clients file that names them."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.clients: dict[str, dict] = {}
        self.make("server")

    def make(self, name: str) -> str:
        run("chimera", "key", "new", name, "--out", str(self.work))
        return zmq.auth.load_certificate(self.work / f"{name}.pub")[0].decode()

    def add(self, client: str, roles: list[str] | None = None, modules="all", **more) -> None:
        self.clients[client] = {"name": client, "public_key": self.make(client),
                                "roles": roles or ["use"], "modules": modules, **more}

    def write(self) -> None:
        temporary = self.work / "clients.tmp"
        temporary.write_text(json.dumps({"chimera": "clients/1",
                                         "clients": list(self.clients.values())}))
        temporary.rename(self.work / "clients.yaml")

    @property
    def security(self) -> dict[str, str]:
        return {"key": str(self.work / "server.key"), "clients": str(self.work / "clients.yaml")}

    def of(self, client: str) -> dict[str, str]:
        return {"key": str(self.work / f"{client}.key"), "server_key": str(self.work / "server.pub")}


class Secured(unittest.TestCase):
    def setUp(self) -> None:
        self.work = Path(tempfile.mkdtemp(prefix="chimera-security-"))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        self.keys = Keys(self.work)
        self.keys.add("alice")
        self.keys.add("root", ["admin"])

    def daemon(self, backbone: Path = GOLDEN / "flex_olmo_f32", tcp: bool = True, **options) -> Daemon:
        self.keys.write()
        serve = options.pop("serve", {})
        if tcp:
            serve["endpoint"] = f"tcp://127.0.0.1:{free_port()}"
            options["control"] = f"tcp://127.0.0.1:{free_port()}"
        return Daemon(backbone, serve=serve, security=self.keys.security,
                      client_options=self.keys.of("root") if tcp else {}, **options)

    def refused(self, daemon: Daemon, **options) -> None:
        with daemon.client(connect_timeout=2.0, **options) as client:
            with self.assertRaises((chimera_client.PermissionDenied, chimera_client.Unavailable)):
                client.health()
