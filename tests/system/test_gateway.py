"""chimera-gateway: the API of OpenAI and the native one, over HTTP, against a real daemon."""
import base64
import hashlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from gateway import Answer, Gateway, data_lines
from harness import BIN, ENDLESS, SLOW, SOURCE, Daemon, endless, wait_for
from test_chat import TEMPLATE, checkpoint

GREEDY = {"temperature": 0, "ignore_eos": True}


def server_sent(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Name and data of each event, as they come."""
    name = ""
    while line := response.readline().decode():
        if line.startswith("event: "):
            name = line.removeprefix("event: ").strip()
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def digest(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


class DemoTest(unittest.TestCase):
    """The shipped demo: text in, text out, experts by name."""

    @classmethod
    def setUpClass(cls) -> None:
        modules = [{"path": str(SOURCE / "experts" / name)} for name in ("legal", "bio")]
        cls.daemon = Daemon(SOURCE / "experts" / "backbone", precision="bf16", modules=modules, threads=2,
                            log_level="debug")
        cls.gateway = Gateway(
            cls.daemon, keys=[
                {"principal": "writer", "digest": digest("w" * 20), "rights": ["generate"]},
                {"principal": "biologist", "digest": digest("b" * 20), "rights": ["generate"], "modules": ["bio"]},
                {"principal": "watcher", "digest": digest("o" * 20), "rights": ["observe"]},
                {"principal": "single", "digest": digest("s" * 20), "rights": ["generate"], "streams": 1},
            ],
            models={"name": "demo", "aliases": {"lawyer": {
                "modules": {"only": ["legal"], "bias": {"legal": 0.5}},
                "defaults": {"max_tokens": 3, "temperature": 0}}}},
            hosts=["gateway.example"], cors={"origins": ["https://page.example"]})
        cls.client = cls.daemon.client()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.client.close()
        cls.gateway.__exit__(None, None, None)
        cls.daemon.__exit__(None, None, None)

    def complete(self, **body: Any) -> Answer:
        return self.gateway.post("/v1/completions", {"model": "demo", "prompt": "The Borrower shall", **GREEDY, **body})

    def test_text_is_what_the_daemon_says(self) -> None:
        answer = self.complete(max_tokens=12)
        self.assertEqual(answer.status, 200, answer.body)
        whole = self.client.complete("The Borrower shall", max_tokens=12, **GREEDY)
        body = answer.json
        self.assertEqual(body["object"], "text_completion")
        self.assertEqual(body["choices"], [{"index": 0, "text": whole["text"], "logprobs": None,
                                            "finish_reason": "length"}])
        self.assertEqual(body["usage"]["completion_tokens"], 12)
        self.assertEqual(body["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"])
        provenance = whole["provenance"]
        self.assertEqual(body["chimera"]["epoch"], provenance["epoch"])
        self.assertEqual(body["chimera"]["composition"], provenance["composition"])
        self.assertEqual(body["chimera"]["modules"], {n: m["share"] for n, m in provenance["modules"].items()})
        self.assertEqual(answer.headers["chimera-epoch"], str(provenance["epoch"]))
        self.assertIn("legal=0.", answer.headers["chimera-modules"])

    def test_the_api_has_sixteen_tokens_by_default(self) -> None:
        self.assertEqual(self.complete().json["usage"]["completion_tokens"], 16)

    def test_a_stream_adds_up_to_the_whole(self) -> None:
        whole = self.complete(max_tokens=20).json
        answer = self.complete(max_tokens=20, stream=True, stream_options={"include_usage": True})
        self.assertEqual(answer.headers["content-type"], "text/event-stream; charset=utf-8")
        events = answer.events()
        self.assertEqual(events.pop(), "[DONE]")
        usage = events.pop()
        self.assertEqual((usage["choices"], usage["usage"]), ([], whole["usage"]))
        self.assertEqual("".join(e["choices"][0]["text"] for e in events), whole["choices"][0]["text"])
        self.assertEqual([e["choices"][0]["finish_reason"] for e in events if e["choices"][0]["finish_reason"]],
                         ["length"])
        self.assertTrue(all(e["usage"] is None for e in events))
        self.assertEqual(events[-1]["chimera"]["modules"], whole["chimera"]["modules"])
        self.assertEqual(len({e["id"] for e in events}), 1)
        without = self.complete(max_tokens=2, stream=True).events()
        self.assertTrue(all("usage" not in e for e in without if e != "[DONE]"))

    def test_the_name_of_the_model_is_a_composition(self) -> None:
        def shares(model: str, **more: Any) -> dict[str, float]:
            answer = self.complete(model=model, max_tokens=4, **more)
            self.assertEqual(answer.status, 200, answer.body)
            return answer.json["chimera"]["modules"]

        self.assertEqual(set(shares("demo")), {"legal", "bio"})
        self.assertEqual(shares("demo:base"), {})
        self.assertEqual(set(shares("demo:legal")), {"legal"})
        self.assertEqual(set(shares("demo:bio+legal")), {"legal", "bio"})
        self.assertEqual(set(shares("demo", chimera={"modules": {"exclude": ["bio"]}})), {"legal"})
        self.assertEqual(set(shares("demo:bio+legal", chimera={"modules": {"only": ["bio"]}})), {"bio"})
        less = shares("demo", chimera={"modules": {"bias": {"bio": -100}}})
        self.assertLess(less["bio"], 1e-6)
        by_header = self.gateway.post("/v1/completions", {"model": "demo", "prompt": "a", "max_tokens": 1},
                                      headers={"chimera-modules-only": "legal"})
        self.assertEqual(set(by_header.json["chimera"]["modules"]), {"legal"})

    def test_an_alias_brings_modules_and_defaults(self) -> None:
        answer = self.gateway.post("/v1/completions", {"model": "lawyer", "prompt": "The Borrower shall",
                                                       "ignore_eos": True}).json
        whole = self.client.complete("The Borrower shall", max_tokens=3, **GREEDY,
                                     modules={"only": ["legal"], "bias": {"legal": 0.5}})
        self.assertEqual(answer["choices"][0]["text"], whole["text"])
        self.assertEqual(answer["model"], "lawyer")

    def test_models(self) -> None:
        names = [model["id"] for model in self.gateway.get("/v1/models").json["data"]]
        self.assertEqual(names, ["demo", "demo:base", "demo:legal", "demo:bio", "lawyer"])
        self.assertEqual(self.gateway.get("/v1/models/demo%3Alegal").json["id"], "demo:legal")
        self.assertEqual(self.gateway.get("/v1/models/demo:legal+bio").status, 200)
        self.assertEqual(self.gateway.get("/v1/models/gpt-4").status, 404)
        mine = [m["id"] for m in self.gateway.get("/v1/models", key="b" * 20).json["data"]]
        self.assertEqual(mine, ["demo", "demo:base", "demo:bio"])

    def test_several_choices_and_seeds(self) -> None:
        options = {"max_tokens": 8, "temperature": 2.0, "seed": 7}
        answer = self.complete(n=3, **options).json
        texts = [choice["text"] for choice in answer["choices"]]
        self.assertEqual([choice["index"] for choice in answer["choices"]], [0, 1, 2])
        self.assertEqual(len(set(texts)), 3)
        self.assertEqual(texts, [choice["text"] for choice in self.complete(n=3, **options).json["choices"]])
        self.assertEqual(texts[1], self.complete(**{**options, "seed": 8}).json["choices"][0]["text"])
        one = self.complete(n=1, **options).json["usage"]
        self.assertEqual(answer["usage"]["prompt_tokens"], one["prompt_tokens"])
        self.assertEqual(answer["usage"]["completion_tokens"], 24)
        streamed = self.complete(n=3, stream=True, **options).events()[:-1]
        for i in range(3):
            self.assertEqual("".join(e["choices"][0]["text"] for e in streamed if e["choices"][0]["index"] == i),
                             texts[i])

    def test_choices_share_the_reading_of_their_prompt(self) -> None:
        prompt = " ".join(f"Clause {i} of the agreement." for i in range(30))
        before = self.client.stats()["engine"]["cached_tokens"]
        usage = self.complete(prompt=prompt, n=4, max_tokens=1).json["usage"]
        self.assertEqual(usage["prompt_tokens_details"]["cached_tokens"], 0)
        whole = (usage["prompt_tokens"] - 1) // 16 * 16  # blocks of the cache that end before the last token
        self.assertGreater(whole, 100)
        self.assertEqual(self.client.stats()["engine"]["cached_tokens"] - before, 3 * whole)

    def test_several_prompts(self) -> None:
        answer = self.complete(prompt=["The court", [1, 2, 3]], max_tokens=2).json
        self.assertEqual(len(answer["choices"]), 2)
        self.assertEqual(answer["choices"][1]["text"],
                         self.client.complete(tokens=[1, 2, 3], max_tokens=2, **GREEDY)["text"])

    def test_logprobs(self) -> None:
        generation = self.client.generate("The Borrower shall", max_tokens=5, logprobs=True, **GREEDY)
        expected = list(generation)
        choice = self.complete(max_tokens=5, logprobs=0).json["choices"][0]
        self.assertEqual(choice["logprobs"]["token_logprobs"], [token.logprob for token in expected])
        self.assertEqual(choice["logprobs"]["tokens"], [token.text for token in expected])
        self.assertEqual("".join(choice["logprobs"]["tokens"]), choice["text"])
        self.assertEqual(choice["logprobs"]["text_offset"][1], len(expected[0].text))

    def test_alternatives_and_what_steers_the_choice(self) -> None:
        generation = self.client.generate("The Borrower shall", max_tokens=5, top_logprobs=2, **GREEDY)
        expected = list(generation)
        logprobs = self.complete(max_tokens=5, logprobs=2).json["choices"][0]["logprobs"]
        for top, token in zip(logprobs["top_logprobs"], expected, strict=True):
            texts = {c["text"]: c["logprob"] for c in reversed(token.top_logprobs)}
            self.assertEqual({text: top[text] for text in texts}, texts)
            self.assertLessEqual(len(top), 3)  # and the chosen one, as it came
        best, second = expected[0].top_logprobs
        banned = self.complete(max_tokens=1, logit_bias={best["token"]: -100}).json["choices"][0]["text"]
        self.assertEqual(banned, self.client.detokenize([second["token"]]))
        again = self.complete(max_tokens=8, logit_bias={best["token"]: 30}).json["choices"][0]["text"]
        self.assertEqual(again, best["text"] * 8)
        varied = self.complete(max_tokens=8, logit_bias={best["token"]: 2}, frequency_penalty=2,
                               presence_penalty=2).json["choices"][0]["text"]
        self.assertNotEqual(varied, again)

    def test_embeddings(self) -> None:
        def embed(**body: Any) -> Answer:
            return self.gateway.post("/v1/embeddings", {"model": "demo", "input": "The court", **body})

        whole = self.client.embed("The court")
        answer = embed()
        self.assertEqual(answer.status, 200, answer.body)
        body, count = answer.json, whole.done["usage"]["prompt_tokens"]
        self.assertEqual(body["object"], "list")
        self.assertEqual(body["data"], [{"object": "embedding", "index": 0, "embedding": whole.embedding}])
        self.assertEqual(body["usage"], {"prompt_tokens": count, "total_tokens": count})
        self.assertEqual(body["chimera"]["modules"], {n: m["share"] for n, m in whole.provenance["modules"].items()})
        self.assertIn("legal=0.", answer.headers["chimera-modules"])
        packed = base64.b64decode(embed(encoding_format="base64").json["data"][0]["embedding"])
        self.assertEqual(packed, struct.pack(f"<{len(whole.embedding)}f", *whole.embedding))

        def vectors(**more: Any) -> list[list[float]]:
            return [item["embedding"] for item in embed(**more).json["data"]]

        own = {"pooling": "last", "normalize": False, "modules": {"only": ["bio"]}}
        self.assertEqual(vectors(chimera=own), [self.client.embed("The court", **own).embedding])
        self.assertEqual(vectors(model="demo:base"), [self.client.embed("The court", modules={"only": []}).embedding])
        # Of an alias its modules; its defaults are of texts.
        alias = {"only": ["legal"], "bias": {"legal": 0.5}}
        self.assertEqual(vectors(model="lawyer"), [self.client.embed("The court", modules=alias).embedding])
        texts = [f"Clause {i}" for i in range(30)]
        self.assertEqual(vectors(input=texts), [self.client.embed(text).embedding for text in texts])
        self.assertEqual(vectors(input=[[1, 2], [3]]), [self.client.embed(tokens=t).embedding for t in ([1, 2], [3])])
        for more, status, said in (
                ({"dimensions": 8}, 400, "dimensions"), ({"input": None}, 400, "input"), ({"input": ""}, 400, "input: empty"),
                ({"input": ["a", ""]}, 400, "input[1]: empty"), ({"input": [[1], [99_999]]}, 400, "input[1]: tokens[0] is 99999"),
                ({"input": ["a"] * 2049}, 400, "at most 2048"), ({"input": [1, "a"]}, 400, "input"), ({"input": {}}, 400, "input"),
                ({"encoding_format": "hex"}, 400, "encoding_format"), ({"stream": True}, 400, "stream"),
                ({"chimera": {"pooling": "cls"}}, 400, "chimera.pooling"), ({"chimera": {"shares": True}}, 400, "chimera.shares"),
                ({"model": "gpt-4"}, 404, "model"), ({"chimera": {"modules": {"only": ["nobody"]}}}, 404, "nobody"),
                ({"input": "law " * 600}, 400, "expected at most 512"), ({"input": [[1] * 400] * 9, "chimera": {"deadline_ms": 1}}, 408, "")):
            with self.subTest(more=str(more)[:60]):
                wrong = embed(**more)
                self.assertEqual(wrong.status, status, wrong.body)
                self.assertIn(said, wrong.json["error"]["message"])
        self.assertEqual(embed(user="me").status, 200)
        # What keys may: their modules alone, here and by the native call.
        mine = self.gateway.post("/v1/embeddings", {"model": "demo", "input": "a"}, key="b" * 20)
        self.assertEqual(set(mine.json["chimera"]["modules"]), {"bio"})
        for path, ask in (("/v1/embeddings", {"model": "demo:legal", "input": "a"}), ("/chimera/v1/embed", {"text": "a"}),
                          ("/chimera/v1/embed", {"text": "a", "modules": {"only": ["legal"]}})):
            self.assertEqual(self.gateway.post(path, ask, key="b" * 20).status, 403, ask)
        self.assertEqual(self.gateway.post("/v1/embeddings", {"model": "demo", "input": "a"}, key="o" * 20).status, 403)
        native = self.gateway.post("/chimera/v1/embed", {"text": "a", "modules": {"only": ["bio"]}}, key="b" * 20)
        self.assertEqual(native.json["embedding"], self.client.embed("a", modules={"only": ["bio"]}).embedding)
        self.assertIn('gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="embeddings"',
                      self.gateway.get("/metrics").body.decode())

    def test_embeddings_of_one_request_are_of_one_epoch(self) -> None:
        texts = [f"Clause {i}: " + "the court and the cell " * (1 + i % 7) for i in range(80)]
        answers: list[Answer] = []

        def ask() -> None:
            answers.append(self.gateway.post("/v1/embeddings", {"model": "demo", "input": texts}))

        begun = self.client.stats()["engine"]["admitted"]
        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: self.client.stats()["engine"]["admitted"] > begun + 10, "some of the inputs")
        self.client.call("bias", name="legal", value=3.0)
        try:
            asking.join()
            self.assertEqual(answers[0].status, 200, answers[0].body)
            got = [item["embedding"] for item in answers[0].json["data"]]
            after = [self.client.embed(text).embedding for text in texts]
        finally:
            self.client.call("bias", name="legal", value=0.0)
        if got != after:  # all of them were there before the change
            self.assertEqual(got, [self.client.embed(text).embedding for text in texts])
        self.assertEqual(answers[0].json["usage"]["prompt_tokens"],
                         sum(len(self.client.tokenize(text, add_special=True)) for text in texts))

    def test_a_deadline_is_of_all_inputs_together(self) -> None:
        answer = self.gateway.post("/v1/embeddings", {"model": "demo", "input": ["The court"] * 2048,
                                                      "chimera": {"deadline_ms": 20}})
        self.assertEqual(answer.status, 408, answer.body[:200])

    def test_stop(self) -> None:
        text = self.complete(max_tokens=30).json["choices"][0]["text"]
        word = text.split()[2]
        answer = self.complete(max_tokens=30, stop=word).json["choices"][0]
        self.assertEqual((answer["text"], answer["finish_reason"]), (text[:text.index(word)], "stop"))

    def test_a_deadline_is_a_408(self) -> None:
        # A context of 512 tokens takes longer than a millisecond.
        answer = self.complete(max_tokens=500, chimera={"deadline_ms": 1})
        self.assertEqual((answer.status, answer.json["error"]["code"]), (408, "deadline_exceeded"))

    def test_what_is_not_supported_is_refused_by_name(self) -> None:
        text, chat = "/v1/completions", "/v1/chat/completions"
        for path, field, value in (
                (text, "echo", True), (text, "best_of", 2), (text, "suffix", "x"),
                (chat, "audio", {})):
            with self.subTest(field=field):
                body = {"model": "demo", "prompt" if path == text else "messages":
                        "x" if path == text else [{"role": "user", "content": "x"}], field: value}
                answer = self.gateway.post(path, body)
                self.assertEqual(answer.status, 400, answer.body)
                error = answer.json["error"]
                self.assertEqual((error["param"], error["code"]), (field, "unsupported_parameter"))
                self.assertEqual(set(error), {"message", "type", "param", "code"})
        for field, value in (("logit_bias", {}), ("frequency_penalty", 0), ("presence_penalty", None), ("user", "me"),
                             ("best_of", 1), ("echo", False)):
            self.assertEqual(self.complete(max_tokens=1, **{field: value}).status, 200, field)

    def test_errors_name_the_field(self) -> None:
        for body, status, param in (
                ({"top_p": 2}, 400, "top_p"), ({"max_tokens": 0}, 400, "max_tokens"), ({"n": 0}, 400, "n"),
                ({"stop": ["a"] * 17}, 400, "stop"), ({"seed": -1}, 400, "seed"), ({"temprature": 1}, 400, "temprature"),
                ({"chimera": {"modules": {"onyl": []}}}, 400, None), ({"model": "gpt-4"}, 404, "model"),
                ({"model": "demo:tax"}, 404, "model"), ({"model": "demo:legal+tax"}, 404, "model"),
                ({"chimera": {"modules": {"only": ["tax"]}}}, 404, None), ({"prompt": {}}, 400, "prompt"), ({"model": None}, 400, "model"),
                ({"stream_options": {"include_usage": True}}, 400, "stream_options"), ({"stream": 1}, 400, "stream")):
            with self.subTest(body=body):
                answer = self.complete(**body)
                self.assertEqual(answer.status, status, answer.body)
                if param:
                    self.assertEqual(answer.json["error"]["param"], param)
        unknown = self.complete(model="demo:legal+tax").json["error"]
        self.assertEqual(unknown["code"], "model_not_found")
        self.assertIn('model: "demo:legal+tax": module "tax" is not loaded', unknown["message"])
        self.assertIn("did you mean temperature", self.complete(temprature=1).json["error"]["message"])
        for body in ("{", "[1]", '{"model":"demo","model":"demo"}', b"\xff"):
            self.assertEqual(self.gateway.post("/v1/completions", body).status, 400, body)

    def test_without_a_template_a_chat_says_so(self) -> None:
        answer = self.gateway.post("/v1/chat/completions", {"model": "demo", "messages": [
            {"role": "user", "content": "hi"}]})
        self.assertEqual((answer.status, answer.json["error"]["code"]), (422, "unimplemented"))

    # ---- keys and rights ---------------------------------------------------------------------

    def test_keys(self) -> None:
        self.assertEqual(self.gateway.get("/v1/models", key=None).status, 401)
        refused = self.gateway.get("/v1/models", key="wrong")
        self.assertEqual((refused.status, refused.json["error"]["code"]), (401, "invalid_api_key"))
        self.assertEqual(refused.headers["www-authenticate"], "Bearer")
        self.assertEqual(self.gateway.get("/v1/models", key=None, headers={"x-api-key": "w" * 20}).status, 200)
        self.assertEqual(self.gateway.get("/v1/models", key="o" * 20).status, 403)
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.gateway.get(path, key=None).status, 200, path)

    def test_rights_of_the_native_api(self) -> None:
        for key, path, body, status in (
                ("w" * 20, "modules", None, 403), ("o" * 20, "modules", None, 200),
                ("o" * 20, "bias", {"name": "bio", "value": 0.0}, 403),
                ("o" * 20, "routing", {"reset": True}, 403), ("o" * 20, "routing?reset=true", None, 400),
                ("w" * 20, "tokenize", {"text": "a"}, 200), (None, "tokenize", {"text": "a"}, 401)):
            method = "GET" if body is None else "POST"
            answer = self.gateway.request(method, "/chimera/v1/" + path, body, key=key)
            self.assertEqual(answer.status, status, (key, path, answer.body))

    def test_a_key_uses_its_modules_alone(self) -> None:
        mine = {"key": "b" * 20}
        ask = {"model": "demo", "prompt": "The cells", "max_tokens": 3}
        self.assertEqual(set(self.gateway.post("/v1/completions", ask, **mine).json["chimera"]["modules"]), {"bio"})
        for more in ({"model": "demo:legal"}, {"chimera": {"modules": {"bias": {"legal": 1}}}}):
            answer = self.gateway.post("/v1/completions", {**ask, **more}, **mine)
            self.assertEqual((answer.status, answer.json["error"]["type"]), (403, "permission_error"))
        scored = self.gateway.post("/chimera/v1/score", {"text": "The cells"}, **mine)
        self.assertEqual(scored.status, 403)
        self.assertEqual(self.gateway.post("/chimera/v1/score", {"text": "The cells", "modules": {"only": ["bio"]}},
                                           **mine).status, 200)

    def test_streams_of_a_key_are_bounded(self) -> None:
        connection = self.gateway.connect()
        body = json.dumps({"model": "demo", "prompt": "a", "max_tokens": 500, "stream": True, "ignore_eos": True})
        headers = {"Authorization": "Bearer " + "s" * 20, "Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", body, headers)
        response = connection.getresponse()
        self.assertEqual(response.status, 200)
        again = self.gateway.post("/v1/completions", {"model": "demo", "prompt": "a"}, key="s" * 20)
        # The first may be over by now on a quick machine; then there was nothing to refuse.
        if again.status == 429:
            self.assertEqual(again.headers["retry-after"], "1")
            self.assertEqual(again.json["error"]["type"], "rate_limit_error")
        response.read()
        connection.close()
        wait_for(lambda: self.gateway.post("/v1/completions", {"model": "demo", "prompt": "a"},
                                           key="s" * 20).status == 200, "a free place")

    def test_traces_go_through_to_the_daemon(self) -> None:
        trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
        header = f"00-{trace}-{parent}-01"

        def answered(path: str, body: Any = None, **headers: str) -> str:
            answer = self.gateway.request("GET" if body is None else "POST", path, body, headers=headers)
            return answer.headers["traceparent"]

        completion = {"model": "demo", "prompt": "a", "max_tokens": 1}
        spans = set()
        for path, body, call in (("/v1/completions", completion, "generate"), ("/v1/models", None, "info"),
                                 ("/v1/completions", {**completion, "stream": True}, "generate"),
                                 ("/v1/embeddings", {"model": "demo", "input": "a"}, "embed"),
                                 ("/chimera/v1/epochs", None, "epochs")):
            given = answered(path, body, traceparent=header)
            self.assertRegex(given, f"^00-{trace}-[0-9a-f]{{16}}-01$")
            spans.add(given)
            wait_for(lambda: re.search(rf"request_ended .*call={call} .*traceparent={given}", self.daemon.log_text()),
                     "the daemon's line")
            self.assertRegex(self.daemon.log_text(), rf"request endpoint=\w+ call={call} .*traceparent={given}")
            self.assertIn(f"traceparent={given}", self.gateway.log_text())
        self.assertEqual(len(spans), 5)  # each a span of its own
        # No trace, one that is invalid, and one that a later version wrote; refusals have one, too.
        for wrong in ("", "x", header.upper(), "ff" + header[2:], header + "-more", f"00-{'0' * 32}-{parent}-01"):
            self.assertRegex(answered("/healthz", traceparent=wrong), "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$")
            self.assertNotIn(trace, answered("/nowhere", traceparent=wrong))
        self.assertIn(trace, answered("/healthz", traceparent="cc" + header[2:] + "-more"))

    def test_keys_are_in_no_log(self) -> None:
        self.gateway.get("/v1/models", key="w" * 20)
        self.gateway.get("/v1/models?key=" + "w" * 20, key=None)
        log = self.gateway.log_text()
        self.assertNotIn("w" * 20, log)
        self.assertNotIn(self.gateway.admin, log + self.gateway.greeting)
        mode = pathlib.Path(self.gateway.config["admin_key"]).stat().st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    # ---- browsers ----------------------------------------------------------------------------

    def test_host_and_origin(self) -> None:
        def status(path: str = "/v1/models", method: str = "GET", **headers: str) -> int:
            return self.gateway.request(method, path, headers=headers).status

        port = self.gateway.port
        self.assertEqual(status(Host="evil.example"), 403)
        self.assertEqual(status(Host="gateway.example"), 200)
        self.assertEqual(status(Host=f"localhost:{port}"), 200)
        self.assertEqual(status(Origin="http://evil.example"), 403)
        self.assertEqual(status(Origin="null"), 403)
        self.assertEqual(status(Origin=f"http://127.0.0.1:{port}"), 200)
        allowed = self.gateway.get("/v1/models", headers={"Origin": "https://page.example"})
        self.assertEqual(allowed.headers["access-control-allow-origin"], "https://page.example")
        asked = self.gateway.request("OPTIONS", "/v1/chat/completions", key=None,
                                     headers={"Origin": "https://page.example",
                                              "Access-Control-Request-Method": "POST"})
        self.assertEqual(asked.status, 204)
        self.assertIn("authorization", asked.headers["access-control-allow-headers"])
        self.assertEqual(self.gateway.request("OPTIONS", "/v1/models", key=None,
                                              headers={"Origin": "http://evil.example"}).status, 403)
        self.assertNotIn("access-control-allow-origin", self.gateway.get("/v1/models").headers)

    def test_paths_and_methods(self) -> None:
        self.assertEqual(self.gateway.get("/nothing").status, 404)
        self.assertEqual(self.gateway.get("/v1/completions").status, 405)
        self.assertEqual(self.gateway.get("/chimera/v1/load").status, 405)
        self.assertEqual(self.gateway.get("/chimera/v1/shutdown").status, 404)
        form = self.gateway.request("POST", "/v1/completions", "{}", headers={"Content-Type": "text/plain"})
        self.assertEqual(form.status, 415)

    def test_the_console_is_a_page_for_everybody(self) -> None:
        page = self.gateway.get("/", key=None)
        self.assertEqual((page.status, page.headers["content-type"]), (200, "text/html; charset=utf-8"))
        self.assertIn("default-src 'none'", page.headers["content-security-policy"])
        self.assertEqual((page.headers["referrer-policy"], page.headers["x-content-type-options"]),
                         ("no-referrer", "nosniff"))
        for name in re.findall(r'(?:src|href)="(/[^"]+)"', page.body.decode()):
            self.assertEqual(self.gateway.get(name, key=None).status, 200, name)
        tag = page.headers["etag"]
        same = self.gateway.request("GET", "/", key=None, headers={"If-None-Match": tag})
        self.assertEqual((same.status, same.body, same.headers["etag"]), (304, b"", tag))
        self.assertNotIn("content-length", same.headers)
        head = self.gateway.request("HEAD", "/", key=None)
        self.assertEqual((head.status, head.body, head.headers["content-length"]), (200, b"", str(len(page.body))))
        self.assertEqual(self.gateway.post("/", {}, key=None).status, 405)
        self.assertEqual(self.gateway.get("/", key=None, headers={"Host": "evil.example"}).status, 403)

    def test_shares_of_every_token(self) -> None:
        asked = {"max_tokens": 6, "stream": True, "chimera": {"shares": True}}
        events = self.complete(**asked).events()[:-1]
        tokens = [event for event in events if not event["choices"][0]["finish_reason"]]
        self.assertEqual(len(tokens), 6)
        for token in tokens:
            self.assertAlmostEqual(sum(token["chimera"]["shares"].values()), 1.0, places=5)
        self.assertIn("legal", set().union(*(token["chimera"]["shares"] for token in tokens)))
        alone = self.complete(**{**asked, "model": "demo:base"}).events()[0]
        self.assertEqual(list(alone["chimera"]["shares"]), ["backbone"])
        self.assertNotIn("shares", self.complete(max_tokens=2, stream=True).events()[0]["chimera"])
        refused = self.complete(chimera={"shares": True})
        self.assertEqual((refused.status, refused.json["error"]["param"]), (400, "chimera.shares"))

    # ---- native ------------------------------------------------------------------------------

    def test_native_calls_are_those_of_the_wire(self) -> None:
        for call in ("modules", "epochs", "info"):
            answer = self.gateway.get(f"/chimera/v1/{call}").json
            expected = self.client.call(call)
            self.assertEqual(set(answer), set(expected) - {"id", "event"}, call)
        layer = self.gateway.get("/chimera/v1/routing?layer=1").json
        self.assertEqual([entry["layer"] for entry in layer["layers"]], [1])
        wrong = self.gateway.post("/chimera/v1/bias", {"name": "bio", "value": 1000})
        self.assertEqual((wrong.status, wrong.json["error"]["code"]), (400, "invalid_argument"))
        gone = self.gateway.post("/chimera/v1/unload", {"name": "tax"})
        self.assertEqual((gone.status, gone.json["error"]["code"]), (404, "not_found"))

    def test_events_tell_what_changes(self) -> None:
        for key, status in (("w" * 20, 403), (None, 401)):
            self.assertEqual(self.gateway.get("/chimera/v1/events", key=key).status, status)
        connection = self.gateway.connect()
        connection.request("GET", "/chimera/v1/events", headers={"Authorization": f"Bearer {'o' * 20}"})
        response = connection.getresponse()
        self.assertEqual(response.headers["content-type"], "text/event-stream; charset=utf-8")
        told = server_sent(response)
        name, state = next(told)
        epoch = self.client.health()["epoch"]
        self.assertEqual((name, state["daemon"], state["epoch"]), ("state", "ok", epoch))
        self.assertEqual({m["name"]: m["state"] for m in state["modules"]}, {"legal": "active", "bio": "active"})
        self.client.call("bias", name="bio", value=1.5)
        name, record = next(told)
        self.assertEqual((name, record["epoch"]), ("epoch", epoch + 1))
        self.assertEqual(next(told), ("module", {**next(m for m in state["modules"] if m["name"] == "bio"), "bias": 1.5}))
        self.client.call("bias", name="bio", value=0)
        self.assertEqual(next(told)[1]["epoch"], epoch + 2)
        connection.close()

    def test_changes_and_rollback(self) -> None:
        before = self.gateway.get("/chimera/v1/info").json["epoch"]
        changed = self.gateway.post("/chimera/v1/bias", {"name": "bio", "value": 0.25}).json
        self.assertGreater(changed["epoch"], before)
        self.assertEqual(changed["changes"][0]["action"], "bias")
        self.assertEqual(self.gateway.post("/chimera/v1/disable", {"name": "bio"}).status, 200)
        self.assertNotIn("demo:bio", [m["id"] for m in self.gateway.get("/v1/models").json["data"]])
        self.assertEqual(self.gateway.post("/chimera/v1/enable", {"name": "bio"}).status, 200)
        back = self.gateway.post("/chimera/v1/rollback", {"epoch": before})
        self.assertEqual(back.status, 200, back.body)


class LongTest(unittest.TestCase):
    """Streams that last until somebody ends them, and a daemon that comes and goes."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = tempfile.TemporaryDirectory(prefix="chimera-gateway-long-")
        cls.model = checkpoint(pathlib.Path(cls.scratch.name) / "model", {"bos_token": "<|begin_of_text|>"}, TEMPLATE)
        endless(cls.model)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.scratch.cleanup()

    def setUp(self) -> None:
        self.daemon = Daemon(self.model, serve={"max_context": ENDLESS, "max_sequences": 3, "max_queue": 1})
        # Streams that a test holds without reading stay, however long a busy machine takes for the rest.
        unread = 65536 if "slow_reader" in self._testMethodName else 1 << 26
        self.gateway = Gateway(self.daemon, limits={"drain_seconds": 600, "unread_bytes": unread})
        self.client = self.daemon.client()

    def tearDown(self) -> None:
        self.client.close()
        if self.gateway.process is not None:
            self.gateway.__exit__(*sys.exc_info())
        self.daemon.__exit__(*sys.exc_info())

    def live(self) -> int:
        stats = self.client.stats()["engine"]
        return stats["live"] + stats["waiting"]

    def long(self, **more: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self.gateway.connect()
        body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "stream": True,
                "ignore_eos": True, **more}
        connection.request("POST", "/v1/chat/completions", json.dumps(body),
                           {"Authorization": f"Bearer {self.gateway.admin}", "Content-Type": "application/json"})
        return connection, connection.getresponse()

    def listen(self) -> http.client.HTTPResponse:
        connection = self.gateway.connect()
        self.addCleanup(connection.close)
        connection.request("GET", "/chimera/v1/events", headers={"Authorization": f"Bearer {self.gateway.admin}"})
        return connection.getresponse()

    def chat(self, **more: Any) -> Answer:
        return self.gateway.post("/v1/chat/completions", {
            "model": "demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, **GREEDY, **more})

    def test_response_formats(self) -> None:
        def ask(response_format: Any, **more: Any) -> Answer:
            return self.chat(response_format=response_format, ignore_eos=False, max_tokens=60, **more)

        schema = {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}, "tries": {"type": "integer", "maximum": 9, "minimum": 0}},
                  "required": ["answer", "tries"], "additionalProperties": False}
        named = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
        choice = ask(named).json["choices"][0]
        self.assertEqual(choice["finish_reason"], "stop")
        verdict = json.loads(choice["message"]["content"])
        self.assertEqual(list(verdict), ["answer", "tries"])
        self.assertIn(verdict["answer"], ("yes", "no"))
        self.assertTrue(ask({"type": "json_object"}).json["choices"][0]["message"]["content"].startswith("{"))
        self.assertEqual(ask({"type": "text"}).status, 200)
        refused = ask({"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}})
        self.assertEqual(refused.status, 400, refused.body)
        error = refused.json["error"]
        self.assertTrue(error["message"].startswith('response_format.json_schema.schema: keyword "not"'), error)
        self.assertEqual(error["param"], "response_format.json_schema")

    def test_chat(self) -> None:
        whole = self.client.call("chat", messages=[{"role": "user", "content": "Hello"}], max_tokens=6, stream=False,
                                 **GREEDY)
        answer = self.chat().json
        self.assertEqual(answer["object"], "chat.completion")
        self.assertEqual(answer["choices"][0]["message"],
                         {"role": "assistant", "content": whole["text"], "refusal": None})
        events = self.chat(stream=True).events()
        self.assertEqual(events[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertEqual("".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]), whole["text"])
        parts = self.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "Hel"},
                                                                 {"type": "text", "text": "lo"}]}])
        self.assertEqual(parts.json["choices"][0]["message"]["content"], whole["text"])
        image = self.chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])
        self.assertEqual((image.status, image.json["error"]["code"]), (400, "unsupported_parameter"))
        developer = self.chat(messages=[{"role": "developer", "content": "x"}, {"role": "user", "content": "Hello"}])
        system = self.chat(messages=[{"role": "system", "content": "x"}, {"role": "user", "content": "Hello"}])
        self.assertEqual(developer.json["choices"][0]["message"], system.json["choices"][0]["message"])
        entries = self.chat(logprobs=True).json["choices"][0]["logprobs"]["content"]
        self.assertEqual("".join(entry["token"] for entry in entries), whole["text"])
        self.assertTrue(all(entry["logprob"] <= 0 and entry["top_logprobs"] == [] for entry in entries))
        self.assertEqual(bytes(entries[0]["bytes"]).decode(), entries[0]["token"])
        entries = self.chat(logprobs=True, top_logprobs=3).json["choices"][0]["logprobs"]["content"]
        for entry in entries:
            top = entry["top_logprobs"]
            self.assertEqual([set(one) for one in top], [{"token", "logprob", "bytes"}] * 3)
            self.assertEqual(top[0]["logprob"], entry["logprob"])  # greedy
            self.assertEqual(bytes(top[0]["bytes"]).decode(errors="replace"), top[0]["token"])

    def message(self, **more: Any) -> Answer:
        return self.gateway.post("/v1/messages", {"model": "demo", "max_tokens": 6, "temperature": 0,
                                                  "messages": [{"role": "user", "content": "Hello"}], **more},
                                 key=None, headers={"x-api-key": self.gateway.admin, "anthropic-version": "2023-06-01"})

    def test_messages_of_anthropic(self) -> None:
        whole = self.client.call("chat", messages=[{"role": "system", "content": "Be brief."},
                                                   {"role": "user", "content": "Hello"}],
                                 max_tokens=6, stream=False, temperature=0)
        answer = self.message(system="Be brief.").json
        self.assertEqual((answer["type"], answer["role"], answer["content"]),
                         ("message", "assistant", [{"type": "text", "text": whole["text"]}]))
        self.assertEqual(answer["stop_reason"], "max_tokens" if whole["finish_reason"] == "length" else "end_turn")
        self.assertEqual(answer["usage"]["output_tokens"], whole["usage"]["completion_tokens"])
        self.assertEqual(answer["chimera"]["epoch"], whole["provenance"]["epoch"])
        blocks = self.message(system=[{"type": "text", "text": "Be brief."}],
                              messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}])
        self.assertEqual(blocks.json["content"], answer["content"])
        stream = self.message(system="Be brief.", stream=True)
        kinds = [line.removeprefix("event: ") for line in stream.body.decode().splitlines() if line.startswith("event: ")]
        self.assertEqual([kinds[0], kinds[1], *kinds[-3:]], ["message_start", "content_block_start", "content_block_stop",
                                                             "message_delta", "message_stop"])
        events = stream.events()
        self.assertEqual("".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta"), whole["text"])
        self.assertEqual(events[-2]["usage"]["output_tokens"], answer["usage"]["output_tokens"])
        for more, status, kind in (({"max_tokens": None}, 400, "invalid_request_error"),
                                   ({"model": "claude"}, 404, "not_found_error"),
                                   ({"tools": [{"name": "a"}]}, 400, "invalid_request_error"),
                                   ({"stop_sequences": [""]}, 400, "invalid_request_error"),
                                   ({"messages": [{"role": "system", "content": "x"}]}, 400, "invalid_request_error"),
                                   ({"messages": [{"role": "user", "content": "x"},
                                                  {"role": "assistant", "content": "y"}]}, 400, "invalid_request_error")):
            with self.subTest(more=more):
                refused = self.message(**more)
                self.assertEqual((refused.status, refused.json["type"], refused.json["error"]["type"]),
                                 (status, "error", kind))
        self.assertIn("stop_sequences", self.message(stop_sequences=[""]).json["error"]["message"])

    def test_a_client_that_leaves_ends_its_sequence(self) -> None:
        for stream in (True, False):
            with self.subTest(stream=stream):
                connection = self.gateway.connect()
                body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "stream": stream,
                        "ignore_eos": True}
                connection.request("POST", "/v1/chat/completions", json.dumps(body),
                                   {"Authorization": f"Bearer {self.gateway.admin}", "Content-Type": "application/json"})
                wait_for(lambda: self.live() == 1, "the sequence has begun")
                connection.close()
                wait_for(lambda: self.live() == 0, "the sequence has ended")

    def test_a_slow_reader_is_cut_off_and_others_go_on(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self.gateway.port))
        body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "stream": True,
                           "ignore_eos": True, "logprobs": True})
        sock.sendall((f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                      f"authorization: Bearer {self.gateway.admin}\r\ncontent-length: {len(body)}\r\n\r\n{body}").encode())
        wait_for(lambda: self.live() == 1, "the sequence has begun")
        self.assertEqual(self.chat().status, 200)
        wait_for(lambda: self.live() == 0, "its reader is cut off", 300)
        sock.close()

    def test_a_full_queue_is_a_429(self) -> None:
        held = [self.long() for _ in range(3)]
        wait_for(lambda: self.live() == 3, "three are answered")
        waiting = self.gateway.connect()
        waiting.request("POST", "/v1/chat/completions", json.dumps(
            {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True}),
            {"Authorization": f"Bearer {self.gateway.admin}", "Content-Type": "application/json"})
        wait_for(lambda: self.live() == 4, "one waits")
        answer = self.chat(stream=True)
        self.assertEqual((answer.status, answer.json["error"]["type"]), (429, "rate_limit_error"))
        self.assertEqual(answer.headers["retry-after"], "1")
        waiting.close()
        for connection, response in held:
            response.close()
            connection.close()
        wait_for(lambda: self.live() == 0, "all have ended")

    def test_a_daemon_that_is_gone_is_a_503_until_it_is_back(self) -> None:
        connection, response = self.long()
        self.assertTrue(response.readline().startswith(b"data: "))
        told = server_sent(self.listen())
        self.assertEqual(next(told)[0], "state")
        self.daemon.kill()
        rest = response.read().decode()
        error = json.loads(list(data_lines("\n\n" + rest))[-1])
        self.assertIn("was lost", error["error"]["message"])
        connection.close()
        answer = self.chat()
        self.assertEqual((answer.status, answer.json["error"]["type"]), (503, "server_error"))
        self.assertIn("nobody answers", answer.json["error"]["message"])
        self.assertEqual(answer.headers["retry-after"], "1")
        self.assertEqual(self.gateway.get("/readyz").status, 503)
        self.assertEqual(self.gateway.get("/healthz").status, 200)
        name, away = next(told)
        self.assertEqual((name, away["status"]), ("daemon", "away"))
        self.daemon.start()
        self.assertEqual(self.chat().status, 200)
        self.assertEqual(self.gateway.get("/readyz").status, 200)
        self.assertEqual(next(told), ("daemon", {"status": "ok"}))

    def test_a_stop_cuts_no_stream(self) -> None:
        connection, response = self.long(max_tokens=3000)
        self.assertTrue(response.readline().startswith(b"data: "))
        listening = self.listen()
        idle = self.gateway.connect()
        idle.request("GET", "/healthz")
        self.assertEqual(Answer(idle.getresponse()).status, 200)
        assert self.gateway.process is not None
        self.gateway.process.send_signal(signal.SIGTERM)
        self.assertEqual(idle.sock.recv(1), b"")  # idle connections end at once
        listening.read()  # has no end of its own, and does not hold up the stop
        text = response.read().decode()
        self.assertTrue(text.endswith("data: [DONE]\n\n"))
        self.assertIn('"finish_reason":"length"', text)
        connection.close()
        idle.close()
        self.assertEqual(self.gateway.process.wait(60 * SLOW), 0)

    def test_a_second_signal_stops_at_once(self) -> None:
        connection, response = self.long()
        self.assertTrue(response.readline().startswith(b"data: "))
        process = self.gateway.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: "draining" in self.gateway.log_text(), "it drains")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60 * SLOW), 0)
        connection.close()
        wait_for(lambda: self.live() == 0, "the sequence has ended")


class ConnectionTest(unittest.TestCase):
    """The protocol under the APIs. There is no daemon."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.gateway = Gateway(("ipc:///nonexistent/serve.sock", "ipc:///nonexistent/control.sock"),
                              limits={"header_bytes": 2048, "body_bytes": 4096, "header_seconds": 5, "body_seconds": 5,
                                      "idle_seconds": 10})

    @classmethod
    def tearDownClass(cls) -> None:
        cls.gateway.__exit__(None, None, None)

    def talk(self, *parts: bytes) -> bytes:
        """Everything that is answered until the other side closes."""
        with self.gateway.socket() as sock:
            for part in parts:
                sock.sendall(part)
            out = b""
            while data := sock.recv(65536):
                out += data
            return out

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        get = b"GET %s HTTP/1.1\r\nhost: localhost\r\n%s\r\n"
        answer = self.talk(get % (b"/healthz", b"") + get % (b"/nothing", b"") + get % (b"/healthz", b"connection: close\r\n"))
        self.assertEqual(re.findall(rb"HTTP/1\.1 (\d+)", answer), [b"200", b"404", b"200"])

    def test_a_request_in_pieces(self) -> None:
        answer = self.talk(b"GET /heal", b"thz HTTP/1.1\r\nhost:", b" localhost\r\nconnection: close\r\n", b"\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)

    def test_http_1_0(self) -> None:
        answer = self.talk(b"GET /healthz HTTP/1.0\r\nhost: localhost\r\n\r\n")
        self.assertIn(b"connection: close", answer)

    def test_limits(self) -> None:
        post = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        key = b"authorization: Bearer " + self.gateway.admin.encode() + b"\r\n"
        for what, sent, status in (
                ("no HTTP", b"hello\r\n\r\n", b"400"),
                ("a long head", b"GET / HTTP/1.1\r\nx: " + b"a" * 4000 + b"\r\n\r\n", b"431"),
                ("a long body", post + key + b"content-length: 5000\r\n\r\n", b"413"),
                ("a long body in chunks", post + key + b"transfer-encoding: chunked\r\n\r\n1400\r\n" + b"a" * 5120, b"413"),
                ("half a head", b"GET /healthz HTTP/1.1\r\n", b"408"),
                ("half a body", post + key + b"content-length: 50\r\n\r\n{", b"408"),
                ("no key, and no body read", post + b"content-length: 50\r\n\r\n", b"401"),
                ("no host", b"GET /healthz HTTP/1.1\r\n\r\n", b"403")):
            with self.subTest(what=what):
                answer = self.talk(sent)
                self.assertEqual(answer.split(b" ")[1], status, answer)
                body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
                self.assertIn("error", body)

    def test_an_idle_connection_is_closed(self) -> None:
        self.assertEqual(self.talk(), b"")

    def test_continue(self) -> None:
        with self.gateway.socket() as sock:
            sock.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                         b"authorization: Bearer " + self.gateway.admin.encode() +
                         b"\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            self.assertEqual(sock.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            sock.sendall(b"{}")
            self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 400 "))

    def test_too_many_connections(self) -> None:
        gone = ("ipc:///nonexistent/serve.sock", "ipc:///nonexistent/control.sock")
        with Gateway(gone, limits={"connections": 5}) as gateway:
            held = [gateway.connect() for _ in range(5)]
            for connection in held:  # one answer each: all of them are accepted
                connection.request("GET", "/healthz")
                self.assertEqual(Answer(connection.getresponse()).status, 200)
            refused = gateway.get("/healthz")
            self.assertEqual((refused.status, refused.headers["retry-after"]), (503, "1"))
            for connection in held:
                connection.close()
            wait_for(lambda: gateway.get("/healthz").status == 200, "room again")

    def test_no_daemon(self) -> None:
        answer = self.gateway.post("/v1/completions", {"model": "demo", "prompt": "a"})
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.json["error"]["code"], "unavailable")


class ConfigurationTest(unittest.TestCase):
    def check(self, text: str, *options: str) -> subprocess.CompletedProcess[str]:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            return subprocess.run([BIN / "chimera-gateway", "--config", file.name, "--check", *options], text=True,
                                  capture_output=True)

    def test_the_shipped_file_is_valid_and_fits_the_schema(self) -> None:
        import jsonschema
        import yaml
        schema = json.loads((SOURCE / "configs" / "gateway.schema.json").read_text())
        shipped = (SOURCE / "configs" / "gateway.yaml").read_text()
        # With what is commented out as well.
        full = re.sub(r"^( *)# ( *[a-z_]+:(?: .*)?)$", r"\1\2", shipped, flags=re.M)
        for text in (shipped, full):
            jsonschema.validate(yaml.safe_load(text), schema)
        self.assertIn("lawyer", yaml.safe_load(full)["models"]["aliases"])
        done = self.check(shipped)
        self.assertEqual((done.returncode, done.stdout), (0, "ok\n"), done.stderr)

    def test_problems_come_all_at_once_and_the_schema_agrees(self) -> None:
        import jsonschema
        import yaml
        schema = json.loads((SOURCE / "configs" / "gateway.schema.json").read_text())
        for text, expected in (
                ("listen: localhost", "listen: found "), ("lisen: 127.0.0.1:1", "did you mean listen?"),
                ("limits: {connections: 0}", "limits.connections: found"), ("models: {name: 'a:b'}", "models.name"),
                ("tls: {certificate: a}", "expected both"), ("anonymous: yes", "refuse or generate"),
                ("models: {aliases: {x: {modules: {only: legal}}}}", "models.aliases.x"),
                ("hosts: a", "hosts: found")):
            with self.subTest(text=text):
                done = self.check(text)
                self.assertEqual(done.returncode, 1)
                self.assertIn(expected, done.stderr)
                with self.assertRaises(jsonschema.ValidationError):
                    jsonschema.validate(yaml.safe_load(text), schema)
        both = self.check("listen: x\nlimits: {idle_seconds: 0}").stderr
        self.assertIn(":1:9: listen", both)
        self.assertIn(":2:24: limits.idle_seconds", both)
        open_door = self.check("listen: 0.0.0.0:80\nanonymous: generate")
        self.assertIn("while listening on 0.0.0.0", open_door.stderr)

    def test_a_terminal_gets_an_address_that_opens(self) -> None:
        """With the key behind the "#", which browsers keep to themselves; a log never gets it."""
        with tempfile.TemporaryDirectory() as work:
            key = pathlib.Path(work, "admin.key")
            file = pathlib.Path(work, "gateway.yaml")
            file.write_text(json.dumps({"chimera": "gateway/1", "listen": "127.0.0.1:0", "admin_key": str(key)}))
            ours, theirs = os.openpty()
            process = subprocess.Popen([BIN / "chimera-gateway", "--config", file], stdout=theirs,
                                       stderr=subprocess.PIPE)
            os.close(theirs)
            with os.fdopen(ours, "rb", buffering=0) as terminal:
                said = b""
                while said.count(b"\n") < 2:
                    said += terminal.read(1)
                self.assertIn(f"/#key={key.read_text().strip()}".encode(), said.splitlines()[0])
                process.terminate()
                self.assertNotIn(key.read_text().strip().encode(), process.communicate()[1])
                self.assertEqual(process.returncode, 0)

    def test_a_key_of_ones_own(self) -> None:
        made = subprocess.run([BIN / "chimera-gateway", "--new-key", "alice"], text=True, capture_output=True, check=True)
        key = made.stdout.splitlines()[0].removeprefix("key: ")
        self.assertIn(f"digest: {digest(key)}", made.stdout)

    def test_files_of_keys_are_read_strictly_and_again(self) -> None:
        gone = ("ipc:///nonexistent/serve.sock", "ipc:///nonexistent/control.sock")
        entry = {"principal": "a", "digest": digest("a" * 20), "rights": ["observe"], "streams": 1}

        def listen(gateway: Gateway, key: str) -> http.client.HTTPResponse:
            connection = gateway.connect()
            self.addCleanup(connection.close)
            connection.request("GET", "/chimera/v1/events", headers={"Authorization": f"Bearer {key * 20}"})
            return connection.getresponse()

        with Gateway(gone, keys=[entry, {**entry, "principal": "c", "digest": digest("c" * 20)}]) as gateway:
            self.assertEqual(gateway.get("/chimera/v1/info", key="b" * 20).status, 401)
            withdrawn, stays = listen(gateway, "a"), listen(gateway, "c")
            self.assertEqual((withdrawn.status, stays.status), (200, 200))
            refused = gateway.get("/chimera/v1/events", key="a" * 20)
            self.assertEqual((refused.status, refused.json["error"]["code"]), (429, "resource_exhausted"))
            gateway.write_keys([{**entry, "digest": digest("b" * 20)},
                                {**entry, "principal": "c", "digest": digest("c" * 20)}])
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGHUP)
            wait_for(lambda: gateway.get("/chimera/v1/info", key="b" * 20).status == 503, "the new key counts")
            self.assertEqual(gateway.get("/chimera/v1/info", key="a" * 20).status, 401)
            withdrawn.read()  # has ended, and its place is free
            self.assertEqual(listen(gateway, "b").status, 200)
            self.assertEqual(gateway.get("/chimera/v1/events", key="c" * 20).status, 429)  # still listens
            gateway.write_keys([{**entry, "rihgts": []}])
            gateway.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "keys_not_read" in gateway.log_text(), "the broken file is told of")
            self.assertEqual(gateway.get("/chimera/v1/info", key="b" * 20).status, 503)

    def test_text_without_a_key_is_an_option_that_is_said(self) -> None:
        gone = ("ipc:///nonexistent/serve.sock", "ipc:///nonexistent/control.sock")
        with Gateway(gone, anonymous="generate") as gateway:
            assert gateway.process is not None and gateway.process.stdout is not None
            self.assertIn("without a key", gateway.process.stdout.readline())
            self.assertEqual(gateway.get("/v1/models", key=None).status, 503)  # no daemon, but permitted
            self.assertEqual(gateway.post("/chimera/v1/unload", {"name": "a"}, key=None).status, 403)
            other = gateway.post("/v1/completions", {"model": "demo", "prompt": "a"}, key=None,
                                 headers={"Origin": "http://evil.example"})
            self.assertEqual(other.status, 403)

    def test_tls(self) -> None:
        import ssl
        with tempfile.TemporaryDirectory() as work:
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout",
                            f"{work}/key.pem", "-out", f"{work}/cert.pem", "-subj", "/CN=localhost", "-addext",
                            "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
            gone = ("ipc:///nonexistent/serve.sock", "ipc:///nonexistent/control.sock")
            with Gateway(gone, tls={"certificate": f"{work}/cert.pem", "key": f"{work}/key.pem"}) as gateway:
                self.assertTrue(gateway.greeting.startswith("https://"))
                context = ssl.create_default_context(cafile=f"{work}/cert.pem")
                connection = http.client.HTTPSConnection("127.0.0.1", gateway.port, context=context, timeout=60 * SLOW)
                for _ in range(2):
                    connection.request("GET", "/healthz")
                    self.assertEqual(Answer(connection.getresponse()).status, 200)
                connection.close()
                self.assertEqual(gateway.process.poll(), None)


if __name__ == "__main__":
    unittest.main()
