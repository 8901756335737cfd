"""A chimera-gateway of a test's own, and requests to it with nothing but the standard library."""
from __future__ import annotations

import http.client
import json
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
from typing import Any, Iterator

from harness import BIN, SLOW, Daemon


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """What a stream sent, "[DONE]" as a string."""
        return [data if data == "[DONE]" else json.loads(data) for data in data_lines(self.body.decode())]


def data_lines(text: str) -> Iterator[str]:
    for block in text.split("\n\n"):
        for line in block.splitlines():
            if line.startswith("data: "):
                yield line.removeprefix("data: ")


class Gateway:
    """`config` is the YAML as an object; endpoints, keys and port are filled in."""

    def __init__(self, daemon: Daemon | tuple[str, str], *, keys: list[dict[str, Any]] | None = None,
                 start: bool = True, **config: Any) -> None:
        self.work = tempfile.TemporaryDirectory(prefix="chimera-gateway-")
        path = pathlib.Path(self.work.name)
        serve, control = daemon if isinstance(daemon, tuple) else (daemon.serve_endpoint, daemon.control_endpoint)
        self.config = {"chimera": "gateway/1", "listen": "127.0.0.1:0",
                       "daemon": {"serve": serve, "control": control},
                       "admin_key": str(path / "state" / "admin.key"), **config}
        if keys is not None:
            self.keys_file = path / "keys.yaml"
            self.write_keys(keys)
            self.config["api_keys"] = str(self.keys_file)
        self.file = path / "gateway.yaml"
        self.file.write_text(json.dumps(self.config))  # JSON is YAML
        self.log = path / "gateway.log"
        self.process: subprocess.Popen[str] | None = None
        if start:
            self.start()

    def write_keys(self, keys: list[dict[str, Any]]) -> None:
        self.keys_file.write_text(json.dumps({"chimera": "keys/1", "keys": keys}))
        self.keys_file.chmod(0o600)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([BIN / "chimera-gateway", "--config", self.file, "--log-level", "debug"],
                                            stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()
        found = re.match(r"(https?)://127\.0\.0\.1:(\d+)/", self.greeting)
        assert found, self.greeting + self.log_text()
        self.greeting += self.process.stdout.readline()
        self.port = int(found[2])
        self.admin = pathlib.Path(self.config["admin_key"]).read_text().strip()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120 * SLOW)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=120 * SLOW)

    def request(self, method: str, path: str, body: Any = None, *, key: str | None = "admin",
                headers: dict[str, str] | None = None) -> Answer:
        sent = dict(headers or {})
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {self.admin if key == 'admin' else key}")
        data = None
        if body is not None:
            data = body if isinstance(body, (bytes, str)) else json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        connection = self.connect()
        try:
            connection.request(method, path, data, sent)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> Answer:
        return self.request("POST", path, body, **options)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60 * SLOW)
        assert self.process.stdout is not None
        self.process.stdout.close()
        for report in ("ThreadSanitizer", "AddressSanitizer", "LeakSanitizer", "runtime error:"):
            assert report not in self.log_text(), self.log_text()[-12000:]
        return self.process.returncode

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            code = self.stop()
            assert exc[0] is not None or code == 0, f"exit status {code}\n{self.log_text()[-4000:]}"
        finally:
            self.work.cleanup()
