"""chimera-gateway driven by clients from npm, unmodified (tests/clients_js).

They are installed as package-lock.json says, into the build folder. Where there is no node, or npm's
registry cannot be reached, the test is skipped and says so.
"""
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from typing import Any, Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from gateway import Gateway
from harness import ENDLESS, SLOW, SOURCE, Daemon, endless, npm_folder
from test_chat import TEMPLATE, checkpoint
from test_gateway_tools import FAMILIES, GENERATED, ScriptedDaemon, done

CLIENTS = SOURCE / "tests" / "clients_js"


class ClientsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = npm_folder(CLIENTS)
        cls.scratch = tempfile.TemporaryDirectory(prefix="chimera-clients-")
        model = checkpoint(pathlib.Path(cls.scratch.name) / "model", {"bos_token": "<|begin_of_text|>"}, TEMPLATE)
        endless(model)
        cls.daemon = Daemon(model, serve={"max_context": ENDLESS, "max_sequences": 3, "max_queue": 1})
        cls.gateway = Gateway(cls.daemon, limits={"unread_bytes": 1 << 26})

    @classmethod
    def tearDownClass(cls) -> None:
        cls.gateway.__exit__(None, None, None)
        cls.daemon.__exit__(None, None, None)
        cls.scratch.cleanup()

    def run_file(self, name: str, gateway: Gateway | None = None) -> None:
        gateway = gateway or self.gateway
        environment = {**os.environ, "BASE": f"http://127.0.0.1:{gateway.port}", "KEY": gateway.admin,
                       "DO_NOT_TRACK": "1", "LANGCHAIN_TRACING_V2": "false"}
        done = subprocess.run(["node", "--test", "--test-concurrency=1", name], cwd=self.folder, env=environment,
                              text=True, capture_output=True, timeout=600 * SLOW)
        self.assertEqual(done.returncode, 0, done.stdout[-8000:] + done.stderr[-4000:])

    def test_openai(self) -> None:
        self.run_file("openai.test.mjs")

    def test_anthropic(self) -> None:
        self.run_file("anthropic.test.mjs")

    def test_tools(self) -> None:
        # A model that calls tools, by a script.
        call, said = FAMILIES["hermes"]

        def script(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
            if request["call"] == "tokenize":
                return iter([done(text=call + "assistant: ", tokens=[1])])
            text = "It rains." if request["messages"][-1]["role"] == "tool" else said
            if not request.get("stream", True):
                return iter([{**GENERATED, "finish_reason": "stop", "text": text, "tokens": []}])
            tokens = ({"event": "token", "text": text[i:i + 3], "token": 1, "epoch": 3} for i in range(0, len(text), 3))
            return itertools.chain(tokens, [{**GENERATED, "finish_reason": "stop"}])

        peer = ScriptedDaemon(self.scratch.name, script)
        try:
            with Gateway((peer.endpoints[0], peer.endpoints[1])) as gateway:
                self.run_file("tools.test.mjs", gateway)
        finally:
            peer.stop()

    def test_calls_that_are_demanded(self) -> None:
        with Gateway(self.daemon, models={"dialect": "hermes"}) as gateway:
            self.run_file("calls.test.mjs", gateway)

    def test_frameworks(self) -> None:
        self.run_file("others.test.mjs")


if __name__ == "__main__":
    unittest.main()
