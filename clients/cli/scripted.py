"""What the tests of `chimera` share: a scripted daemon, and the program run against it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import zmq

CHIMERA = ""

# A shell starts background jobs with SIGINT ignored, and programs that are started inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def done(**fields):
    return {"event": "done", **fields}


def provenance(**shares):
    return {"epoch": 3, "composition": "sha256:" + "ab" * 32, "backbone": {"share": 1 - sum(shares.values())},
            "modules": {n: {"version": "1.0.0", "digest": "sha256:1", "share": s} for n, s in shares.items()}}


GENERATED = done(finish_reason="length", usage={"prompt_tokens": 1, "completion_tokens": 2, "cached_tokens": 0},
                 timing={"queue_ms": 0, "prefill_ms": 1, "decode_ms": 2}, provenance=provenance(legal=0.25))
INFO = done(context=16, score_prefix_token=0, has_chat_template=False, model_type="flex_olmo")


class Daemon(threading.Thread):
    """Two ROUTERs; `script(request)` yields the answers of a request."""

    def __init__(self, directory, script):
        super().__init__()
        self.context = zmq.Context()
        self.requests, self.script, self.ending = [], script, threading.Event()
        self.endpoints = [f"ipc://{directory}/{name}" for name in ("serve", "control")]
        self.sockets = []
        for endpoint in self.endpoints:
            socket = self.context.socket(zmq.ROUTER)
            socket.linger = 0
            socket.bind(endpoint)
            self.sockets.append(socket)
        self.start()

    def run(self):
        poller = zmq.Poller()
        for socket in self.sockets:
            poller.register(socket, zmq.POLLIN)
        while not self.ending.is_set():
            for socket, _ in poller.poll(20):
                identity, magic, body = socket.recv_multipart()
                request = json.loads(body)
                assert magic == b"CHIMERA/1"
                self.requests.append(request)
                for answer in self.script(request):
                    answer = {"id": request["id"], **answer}  # an answer may name another request
                    socket.send_multipart([identity, magic, json.dumps(answer).encode()])
        self.context.destroy(0)

    def stop(self):
        self.ending.set()
        self.join()


class Scripted(unittest.TestCase):
    def daemon(self, script):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.peer = Daemon(self.directory.name, script)
        self.addCleanup(self.peer.stop)
        return self.peer

    def command(self, *arguments):
        return [CHIMERA, "--endpoint", self.peer.endpoints[0], "--control", self.peer.endpoints[1],
                *arguments]

    def run_cli(self, *arguments, stdin=""):
        return subprocess.run(self.command(*arguments), input=stdin, capture_output=True, text=True,
                              timeout=120, cwd=self.directory.name)

    def path(self, name, text):
        path = Path(self.directory.name, name)
        path.write_text(text)
        return str(path)


def main():
    """Runs the tests of the calling program: its first argument is the path of `chimera`."""
    global CHIMERA
    CHIMERA = os.path.abspath(sys.argv.pop(1))
    unittest.main()
