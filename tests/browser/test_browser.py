"""The console in a real browser: Debian's chromium, driven by playwright-core (console.test.mjs).

Without --full, three of the tests run. Where there is no chromium or no npm, or npm's registry cannot
be reached, the test is skipped and says so. --screenshots FOLDER takes pictures instead.
"""
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "system"))
from gateway import Gateway
from harness import DEMO, SLOW, Daemon, npm_folder
from lora_adapters import Adapter

TESTS = SOURCE / "tests" / "browser"
SHORT = "answered|asks|telephone"


def install() -> pathlib.Path:
    if shutil.which("chromium") is None:
        raise unittest.SkipTest("no chromium here (scripts/browser installs it)")
    return npm_folder(TESTS)


class Programs:
    """Daemon and gateway, and an address at which the tests in the browser have them stopped and started."""

    def __init__(self) -> None:
        self.scratch = tempfile.TemporaryDirectory(prefix="chimera-browser-")
        modules = pathlib.Path(self.scratch.name) / "modules"
        for name in ("legal", "bio"):
            shutil.copytree(DEMO / name, modules / name)
        self.modules = modules
        # Of another kind than the module of its name.
        self.adapter = Adapter(DEMO / "backbone", ["q_proj"], 1).write(modules.parent / "adapters" / "bio")
        self.daemon = Daemon(DEMO / "backbone", precision="bf16", top_k=2, threads=2, serve={"max_context": 1024})
        self.gateway = Gateway(self.daemon)
        port = self.gateway.port
        self.gateway.config["listen"] = f"127.0.0.1:{port}"  # the same after a restart
        self.gateway.file.write_text(json.dumps(self.gateway.config))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        actions = {"/gateway/stop": self.gateway.stop, "/gateway/start": self.gateway.start,
                   "/daemon/kill": self.daemon.kill, "/daemon/start": self.daemon.start}

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_GET(self) -> None:  # noqa: N802, the name is the library's
                self.answer(200, "<!doctype html><title>Elsewhere</title>")

            def do_POST(self) -> None:  # noqa: N802
                try:
                    actions[self.path]()
                    self.answer(200, "")
                except Exception as problem:  # noqa: BLE001, whatever it is fails the test there
                    self.answer(500, repr(problem))

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def environment(self) -> dict[str, str]:
        own = f"http://127.0.0.1:{self.server.server_address[1]}"
        return {**os.environ, "BASE": f"http://127.0.0.1:{self.gateway.port}", "KEY": self.gateway.admin,
                "MODULES": str(self.modules), "MIX": str(SOURCE / "experts" / "versions" / "legal-mix"),
                "ADAPTER": str(self.adapter), "HARNESS": own, "CHIMERA_SLOW": str(SLOW),
                # Another port is another origin, and so is another name.
                "FOREIGN": own.replace("127.0.0.1", "localhost")}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.gateway.__exit__(None, None, None)
        self.daemon.__exit__(None, None, None)
        self.scratch.cleanup()


class BrowserTest(unittest.TestCase):
    def test_console(self) -> None:
        folder = install()
        programs = Programs()
        try:
            command = ["node", "--test", "--test-concurrency=1", "--test-reporter=spec"]
            if os.environ.get("CHIMERA_BROWSER") != "full":
                command += ["--test-name-pattern", SHORT]
            done = subprocess.run([*command, "console.test.mjs"], cwd=folder, env=programs.environment(), text=True,
                                  capture_output=True, timeout=1700 * SLOW)
            print(done.stdout[-6000:])
            self.assertEqual(done.returncode, 0, done.stdout[-12000:] + done.stderr[-4000:])
        finally:
            programs.close()


def screenshots(to: str) -> int:
    folder = install()
    programs = Programs()
    try:
        return subprocess.run(["node", "screenshots.mjs", os.path.abspath(to)], cwd=folder,
                              env=programs.environment()).returncode
    finally:
        programs.close()


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--screenshots":
        sys.exit(screenshots(sys.argv[2]))
    if "--full" in sys.argv:
        sys.argv.remove("--full")
        os.environ["CHIMERA_BROWSER"] = "full"
    unittest.main()
