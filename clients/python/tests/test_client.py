"""The Python client against a scripted ROUTER: frames, interleaving, errors, lost daemons."""

import array
import json
import sys
import threading
import tempfile
import time
import unittest
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import chimera_client as cc  # noqa: E402


class Peer:
    """A ROUTER that answers each request with what `script(request)` returns: (body, frames)s."""

    def __init__(self, context, endpoint, script):
        self.requests = []
        self._socket = context.socket(zmq.ROUTER)
        # An answer that was given is delivered, as a daemon that ends sees to it.
        self._socket.setsockopt(zmq.LINGER, 60_000)
        self._socket.bind(endpoint)
        self._script = script
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            if not self._socket.poll(20):
                continue
            identity, magic, body = self._socket.recv_multipart()
            assert magic == b"CHIMERA/1"
            request = json.loads(body)
            self.requests.append(request)
            for answer, frames in self._script(request):
                answer.setdefault("id", request["id"])
                self._socket.send_multipart(
                    [identity, b"CHIMERA/1", json.dumps(answer).encode(), *frames])
        self._socket.close()

    def stop(self):
        self._stop.set()
        self._thread.join()


class ClientTest(unittest.TestCase):
    def start(self, script):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        endpoint = f"ipc://{directory.name}/s"
        context = zmq.Context()
        self.addCleanup(context.term)
        self.peer = Peer(context, endpoint, script)
        self.addCleanup(self.peer.stop)
        client = cc.Client(endpoint, endpoint, timeout=60)
        self.addCleanup(client.close)
        return client

    def test_streams_tokens_then_done(self):
        def script(request):
            for i in range(3):
                yield {"event": "token", "text": f"{i}", "token": i, "epoch": 1}, []
            yield {"event": "done", "finish_reason": "length"}, []

        client = self.start(script)
        generation = client.generate("p", max_tokens=3, seed=None)
        self.assertEqual([t.text for t in generation], ["0", "1", "2"])
        self.assertEqual(generation.done["finish_reason"], "length")
        self.assertEqual(self.peer.requests[0],
                         {"id": generation.id, "call": "generate", "prompt": "p", "max_tokens": 3})

    def test_alternatives_and_shares_come_with_their_token(self):
        top = [{"token": 1, "text": "a", "logprob": -0.5}, {"token": 2, "text": "b", "logprob": None}]

        def script(request):
            yield {"event": "token", "text": "a", "token": 1, "epoch": 1, "logprob": -0.5,
                   "top_logprobs": top, "shares": {"backbone": 0.25, "legal": 0.75}}, []
            yield {"event": "token", "text": "b", "token": 2, "epoch": 1}, []
            yield {"event": "done", "finish_reason": "length"}, []

        client = self.start(script)
        tokens = list(client.generate("p", top_logprobs=2, shares=True, logit_bias={"2": -1}))
        self.assertEqual([t.top_logprobs for t in tokens], [top, []])
        self.assertEqual([t.shares for t in tokens], [{"backbone": 0.25, "legal": 0.75}, {}])
        self.assertIs(self.peer.requests[0]["shares"], True)
        self.assertEqual(self.peer.requests[0]["logit_bias"], {"2": -1})

    def test_interleaved_requests_are_told_apart(self):
        held = []

        def script(request):
            held.append(request["id"])
            if len(held) == 2:
                for i in (1, 0, 1, 0):
                    yield {"event": "token", "text": held[i], "token": 0, "epoch": 1,
                           "id": held[i]}, []
                for i in (0, 1):
                    yield {"event": "done", "id": held[i]}, []

        client = self.start(script)
        first, second = client.generate("a"), client.generate("b")
        self.assertEqual(second.text(), second.id * 2)
        self.assertEqual(first.text(), first.id * 2)

    def test_error_events_become_exceptions(self):
        client = self.start(lambda r: [({"event": "error", "code": "not_found", "message": "m",
                                         "hint": "h"}, [])])
        with self.assertRaises(cc.NotFound) as caught:
            client.unload("x")
        self.assertEqual((caught.exception.message, caught.exception.hint), ("m", "h"))

    def test_unknown_codes_are_still_errors(self):
        client = self.start(lambda r: [({"event": "error", "code": "odd", "message": "m"}, [])])
        with self.assertRaises(cc.ChimeraError) as caught:
            client.health()
        self.assertEqual(caught.exception.code, "odd")

    def test_logits_frame(self):
        values = array.array("f", [0.5, -1.25, 3.0, 1e-30, 2.0, 7.0])
        done = {"event": "done", "bits_per_byte": None, "nats": 1.0, "count": 1, "logprobs": [-1.0],
                "provenance": {}, "logits": {"shape": [2, 3], "dtype": "float32"}}
        client = self.start(lambda r: [(dict(done), [values.tobytes()])])
        score = client.score(tokens=[1, 2], logits=True)
        self.assertEqual(score.shape, (2, 3))
        flat = score.logits.reshape(-1).tolist() if hasattr(score.logits, "reshape") else list(score.logits)
        self.assertEqual(flat, list(values))

    def test_logits_of_another_size_are_refused(self):
        done = {"event": "done", "bits_per_byte": None, "nats": 1.0, "count": 1, "logprobs": [],
                "provenance": {}, "logits": {"shape": [2, 3], "dtype": "float32"}}
        client = self.start(lambda r: [(dict(done), [b"1234"])])
        with self.assertRaises(cc.ChimeraError):
            client.score(tokens=[1, 2], logits=True)

    def test_embeddings(self):
        asked = []

        def script(request):
            asked.append(request)
            return [({"event": "done", "finish_reason": "embedded", "embedding": [0.6, -0.8],
                      "provenance": {"epoch": 1}}, [])]

        client = self.start(script)
        found = client.embed("a", pooling="last", normalize=False, modules={"only": []})
        self.assertEqual((found.embedding, found.finish_reason, found.provenance["epoch"]), ([0.6, -0.8], "embedded", 1))
        client.embed(tokens=(1, 2))
        for request in asked:
            request.pop("id")
        self.assertEqual(asked, [
            {"call": "embed", "text": "a", "pooling": "last", "normalize": False, "modules": {"only": []}},
            {"call": "embed", "tokens": [1, 2]}])

    def test_no_daemon_is_noticed_within_two_seconds(self):
        with tempfile.TemporaryDirectory() as directory:
            endpoint = f"ipc://{directory}/nobody"
            with cc.Client(endpoint, endpoint) as client:
                start = time.monotonic()
                with self.assertRaises(cc.Unavailable) as caught:
                    client.health()
                self.assertLess(time.monotonic() - start, 20)  # the promise, on an idle machine: 2
                self.assertIn(endpoint, caught.exception.message)

    def test_a_daemon_that_dies_is_noticed(self):
        client = self.start(lambda r: [])
        sent = client.send("health")
        while not self.peer.requests:
            time.sleep(0.01)
        self.peer.stop()
        with self.assertRaises(cc.Unavailable):
            client.receive("health", sent)

    def test_the_last_answer_of_a_daemon_that_ends_counts(self):
        client = self.start(lambda r: [({"event": "done", "status": "ok"}, [])])
        sent = client.send("health")
        while not self.peer.requests:
            time.sleep(0.01)
        self.peer.stop()
        time.sleep(0.1)  # answer and end are both there when the client looks
        self.assertEqual(client.receive("health", sent).body["status"], "ok")
        with self.assertRaises(cc.Unavailable):
            client.health()

    def test_control_calls_send_their_fields(self):
        client = self.start(lambda request: [({"event": "done", "cancelled": 2, "requests": []}, [])])
        client.enable("legal")
        client.disable("legal")
        client.blend("legal", {"legal-b": 0.25})
        client.load("/m", canary=0.1, precision="q4", weight=2.0)
        client.canary()
        client.promote()
        client.abort()
        client.plan(deployment={"threads": 2}, directory="/d")
        client.apply({"modules": []}, in_flight="restart")
        client.routing(reset=True)
        self.assertEqual(client.cancel_any("a"), 2)
        self.assertEqual(client.requests(), [])
        sent = [{k: v for k, v in request.items() if k != "id"} for request in self.peer.requests]
        self.assertEqual(sent, [
            {"call": "enable", "name": "legal"}, {"call": "disable", "name": "legal"},
            {"call": "blend", "name": "legal", "lambda": {"legal-b": 0.25}},
            {"call": "load", "path": "/m", "precision": "q4", "weight": 2.0, "canary": 0.1}, {"call": "canary"}, {"call": "promote"}, {"call": "abort"},
            {"call": "plan", "deployment": {"threads": 2}, "directory": "/d"},
            {"call": "apply", "composition": {"modules": []}, "in_flight": "restart"},
            {"call": "routing", "reset": True}, {"call": "cancel", "target": "a"}, {"call": "requests"}])

    def test_a_load_tells_its_progress_or_its_job(self):
        def script(request):
            if request["call"] == "modules":
                return [({"event": "done", "modules": [], "jobs": [{"id": "job-2"}]}, [])]
            told = [({"event": "progress", "job": {"phase": phase}}, []) for phase in ("reading", "probing")]
            return (told if request.get("progress") else []) + [({"event": "done", "job": "job-2"}, [])]

        client = self.start(script)
        phases = []
        client.load("/m", on_progress=lambda job: phases.append(job["phase"]))
        self.assertEqual(phases, ["reading", "probing"])
        self.assertEqual(client.apply({"modules": []}, wait=False)["job"], "job-2")
        client.rollback(detach=True)
        self.assertEqual(client.jobs(), [{"id": "job-2"}])
        sent = [{k: v for k, v in request.items() if k != "id"} for request in self.peer.requests]
        self.assertEqual(sent, [
            {"call": "load", "path": "/m", "progress": True},
            {"call": "apply", "composition": {"modules": []}, "wait": False},
            {"call": "rollback", "detach": True}, {"call": "modules"}])

    def test_timeout_is_an_error(self):
        client = self.start(lambda r: [])
        with self.assertRaises(cc.DeadlineExceeded):
            client.call("health", timeout=0.1)


if __name__ == "__main__":
    unittest.main()
