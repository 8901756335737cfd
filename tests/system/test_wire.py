"""The wire protocol end to end: events, cancelling, clients that go away, limits, draining."""
from __future__ import annotations

import json
import math
import operator
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import zmq

from harness import GOLDEN, SLOW, SOURCE, Daemon, chimera_client, flat, read_safetensors

LONG_RUN = {"max_tokens": 100_000, "temperature": 0, "ignore_eos": True}


def eventually(condition, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds * SLOW
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class WireTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        # Room for a generation that lasts until somebody ends it.
        cls.scratch = tempfile.TemporaryDirectory(prefix="chimera-wire-")
        backbone = Path(cls.scratch.name) / "backbone"
        shutil.copytree(GOLDEN / "flex_olmo_f32", backbone)
        config = json.loads((backbone / "config.json").read_text())
        (backbone / "config.json").unlink()  # the copy may be read-only
        (backbone / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100_000}))
        cls.daemon = Daemon(backbone, serve={"max_context": 50_000, "max_sequences": 2})
        cls.client = cls.daemon.client()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.client.close()
        cls.daemon.__exit__(None, None, None)
        cls.scratch.cleanup()

    def live(self) -> int:
        stats = self.client.stats()
        return stats["server"]["live"] - 1 + stats["engine"]["live"] + stats["engine"]["waiting"]

    def test_alternatives_and_what_steers_the_choice(self) -> None:
        ask = {"tokens": [1, 2, 3], "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        generation = self.client.generate(**ask, top_logprobs=3)
        streamed = list(generation)
        for token in streamed:
            top = token.top_logprobs
            self.assertEqual([c["token"] for c in top][0], token.token)
            self.assertEqual(top[0]["logprob"], token.logprob)  # comes along unasked
            self.assertEqual(sorted((-c["logprob"] for c in top)), [-c["logprob"] for c in top])
        whole = self.client.complete(**ask, top_logprobs=3)
        self.assertEqual(whole["top_logprobs"], [t.top_logprobs for t in streamed])
        for whole_logprob, token in zip(whole["logprobs"], streamed, strict=True):
            self.assertAlmostEqual(whole_logprob, token.logprob, delta=1e-6)  # fewer digits there
        # Forced, banned, and never twice.
        self.assertEqual(self.client.complete(**ask, logit_bias={"7": 100})["tokens"], [7] * 12)
        first = streamed[0]
        banned = self.client.complete(**ask, logit_bias={str(first.token): -100})
        self.assertEqual(banned["tokens"][0], first.top_logprobs[1]["token"])
        forced = {**ask, "logit_bias": {str(i): 100 for i in range(5, 17)}}
        twelve = self.client.complete(**forced, presence_penalty=2, frequency_penalty=2)["tokens"]
        self.assertLess(max(map(twelve.count, twelve)), 12)
        with self.assertRaisesRegex(chimera_client.ChimeraError, "logit_bias.99999"):
            self.client.complete(**ask, logit_bias={"99999": 1})

    def test_embeddings(self) -> None:
        """Head times vector is the mean of the reference's logits, or the last of them: the head is linear."""
        golden = read_safetensors(GOLDEN / "flex_olmo_f32" / "golden.safetensors")
        head = read_safetensors(GOLDEN / "flex_olmo_f32" / "model.safetensors")["lm_head.weight"]
        ids, logits = golden["prompt.2.input_ids"], golden["prompt.2.logits"]
        vocab, width = len(logits) // len(ids), self.client.info()["hidden_size"]
        rows = [logits[at:at + vocab] for at in range(0, len(logits), vocab)]
        for pooling, expected in (("last", rows[-1]), (None, [sum(column) / len(rows) for column in zip(*rows)])):
            found = self.client.embed(tokens=ids, pooling=pooling, normalize=False)
            self.assertEqual((len(found.embedding), found.finish_reason), (width, "embedded"))
            self.assertEqual(found.done["usage"], {"prompt_tokens": len(ids), "completion_tokens": 0, "cached_tokens": 0})
            for v in range(vocab):
                product = sum(map(operator.mul, head[v * width:(v + 1) * width], found.embedding))
                self.assertAlmostEqual(product, expected[v], delta=1e-3)
            unit = self.client.embed(tokens=ids, pooling=pooling).embedding
            self.assertAlmostEqual(math.hypot(*unit), 1.0, delta=1e-6)
            length = math.hypot(*found.embedding)
            for a, b in zip(unit, found.embedding, strict=True):
                self.assertAlmostEqual(a, b / length, delta=1e-6)
        for wrong, said in (({"tokens": [99_999]}, r"tokens\[0\] is 99999"), ({"tokens": [1] * 50_001}, "expected at most 50000"), ({}, "exactly one"),
                            ({"tokens": [1], "pooling": "cls"}, "embed.pooling")):
            with self.assertRaisesRegex(chimera_client.InvalidArgument, said):
                self.client.embed(**wrong)
        ended = self.client.embed(tokens=[1] * 40_000, deadline_ms=1)
        self.assertEqual((ended.finish_reason, ended.embedding), ("deadline", []))

    def test_events_of_a_stream(self) -> None:
        generation = self.client.generate(tokens=[1, 2, 3], max_tokens=5, temperature=0, ignore_eos=True,
                                          logprobs=True)
        tokens = list(generation)
        done = generation.done
        self.assertEqual(len(tokens), 5)
        self.assertTrue(all(t.logprob is not None and t.logprob <= 0 for t in tokens))
        self.assertEqual(done["finish_reason"], "length")
        self.assertEqual(done["usage"]["completion_tokens"], 5)
        self.assertEqual(set(done["timing"]), {"queue_ms", "prefill_ms", "decode_ms"})
        self.assertEqual(done["provenance"]["epoch"], tokens[-1].epoch)
        self.assertNotIn("text", done)
        whole = self.client.complete(tokens=[1, 2, 3], max_tokens=5, temperature=0, ignore_eos=True)
        self.assertEqual(whole["tokens"], [t.token for t in tokens])

    def test_a_reported_seed_gives_the_same_text_again(self) -> None:
        options = {"tokens": [1, 2, 3], "max_tokens": 20, "temperature": 5.0, "ignore_eos": True}
        first = self.client.complete(**options)
        other = self.client.complete(**options)
        again = self.client.complete(seed=first["seed"], **options)
        self.assertEqual(again["tokens"], first["tokens"])
        self.assertNotEqual(other["tokens"], first["tokens"])

    def test_req_sockets_get_one_answer(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.REQ)
        socket.linger = 0
        socket.connect(self.daemon.serve_endpoint)
        for i in range(3):
            request = {"id": f"r{i}", "call": "generate", "tokens": [1, 2], "max_tokens": 3,
                       "temperature": 0, "ignore_eos": True}
            socket.send_multipart([b"CHIMERA/1", json.dumps(request).encode()])
            self.assertTrue(socket.poll(60_000))
            magic, body = socket.recv_multipart()
            self.assertEqual((magic, json.loads(body)["id"]), (b"CHIMERA/1", f"r{i}"))
            self.assertEqual(len(json.loads(body)["tokens"]), 3)
        socket.close()
        context.term()

    def test_score_of_tokens(self) -> None:
        score = self.client.score(tokens=[1, 2, 3, 4], logits=True, routing=True)
        self.assertIsNone(score.bits_per_byte)
        self.assertEqual((score.count, score.shape[0]), (3, 4))
        logits = flat(score.logits)
        vocab = score.shape[1]
        for i, token in enumerate([2, 3, 4]):
            row = logits[i * vocab:(i + 1) * vocab]
            top = max(row)
            expected = row[token] - top - math.log(sum(math.exp(x - top) for x in row))
            self.assertAlmostEqual(score.logprobs[i], expected, delta=1e-4)
        self.assertAlmostEqual(score.nats, -sum(score.logprobs), delta=1e-3)
        for layer in score.routing["layers"]:
            self.assertEqual(len(layer["ids"]), 4)
            self.assertTrue(all(len(ids) == score.routing["k"] for ids in layer["ids"]))

    def test_cancel(self) -> None:
        generation = self.client.generate(tokens=[1, 2, 3], **LONG_RUN)
        next(generation)
        generation.cancel()
        for _ in generation:
            pass
        self.assertEqual(generation.done["finish_reason"], "cancelled")
        self.assertFalse(self.client.cancel(generation.id))

    def test_deadline(self) -> None:
        done = self.client.complete(tokens=[1, 2, 3], deadline_ms=200, **LONG_RUN)
        self.assertEqual(done["finish_reason"], "deadline")
        self.assertLess(done["usage"]["completion_tokens"], 45_000)

    def test_a_client_killed_mid_request_frees_its_slot(self) -> None:
        """Streaming or not: what it asked for ends with its connection."""
        for stream in (True, False):
            with self.subTest(stream=stream):
                code = (f"import sys; sys.path.insert(0, {str(SOURCE / 'clients' / 'python')!r})\n"
                        "import chimera_client, time\n"
                        f"c = chimera_client.Client({self.daemon.serve_endpoint!r})\n"
                        f"c.send('generate', tokens=[1, 2], max_tokens=100000, ignore_eos=True, stream={stream})\n"
                        "print('sent', flush=True); time.sleep(600)\n")
                process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
                process.stdout.readline()
                self.assertTrue(eventually(lambda: self.live() > 0))
                process.kill()
                process.wait()
                process.stdout.close()
                self.assertTrue(eventually(lambda: self.live() == 0), self.client.stats())

    def test_requests_per_connection_are_bounded(self) -> None:
        with self.daemon.client() as client:
            ids = [client.send("generate", tokens=[1, 2], stream=False, **LONG_RUN) for _ in range(70)]
            refused = 0
            for request in ids[64:]:
                with self.assertRaises(chimera_client.ResourceExhausted):
                    client.receive("generate", request, timeout=60)
                refused += 1
            self.assertEqual(refused, 6)
        self.assertTrue(eventually(lambda: self.live() == 0))

    def test_an_id_in_progress_is_refused(self) -> None:
        with self.daemon.client() as client:
            client.send("generate", id="twice", tokens=[1, 2], stream=False, **LONG_RUN)
            client.send("generate", id="twice", tokens=[1, 2], stream=False, **LONG_RUN)
            with self.assertRaises(chimera_client.AlreadyExists):
                client.receive("generate", "twice", timeout=60)

    def test_control_paths_must_be_absolute(self) -> None:
        with self.assertRaises(chimera_client.InvalidArgument) as caught:
            self.client.call("load", path="relative")
        self.assertIn("absolute", caught.exception.message)
        with self.assertRaises(chimera_client.InvalidArgument):
            self.client.plan({"modules": [{"path": "../legal"}]})

    def test_chat_needs_a_template(self) -> None:
        with self.assertRaises(chimera_client.Unimplemented):
            list(self.client.chat([{"role": "user", "content": "hi"}]))

    def test_command_line_against_the_daemon(self) -> None:
        self.assertIn("ok", self.daemon.cli("health").stdout)
        info = json.loads(self.daemon.cli("--json", "info").stdout)
        self.assertEqual(info["model_type"], "flex_olmo")
        self.assertEqual(f"chimera {info['version']}", self.daemon.cli("--version").stdout.strip())
        for command in ("modules", "stats", "epochs", "routing"):
            self.assertTrue(self.daemon.cli(command).stdout, command)


class TextTest(unittest.TestCase):
    """Text in and out, on a golden checkpoint with a small tokenizer beside it."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = tempfile.TemporaryDirectory(prefix="chimera-text-")
        backbone = Path(cls.scratch.name) / "backbone"
        shutil.copytree(GOLDEN / "flex_olmo_f32", backbone)
        shutil.copy(GOLDEN / "tiny312_tokenizer.json", backbone / "tokenizer.json")
        cls.daemon = Daemon(backbone, serve={"max_context": 48})
        cls.client = cls.daemon.client()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.client.close()
        cls.daemon.__exit__(None, None, None)
        cls.scratch.cleanup()

    TEXT = "The court held that — naïve 漢字 🙂 held."

    def test_tokens_there_and_back(self) -> None:
        tokens = self.client.tokenize(self.TEXT)
        self.assertEqual(self.client.detokenize(tokens), self.TEXT)

    def test_streamed_text_is_whole_characters_and_adds_up(self) -> None:
        options = {"max_tokens": 30, "temperature": 0, "ignore_eos": True}
        generation = self.client.generate("The court", **options)
        pieces = [token.text for token in generation]
        whole = self.client.complete("The court", **options)
        self.assertEqual("".join(pieces), whole["text"])
        self.assertEqual(self.client.detokenize(whole["tokens"], skip_special=True), whole["text"])

    def test_score_of_text_covers_every_byte(self) -> None:
        score = self.client.score("The court held that")
        info = self.client.info()
        tokens = self.client.tokenize("The court held that")
        self.assertEqual(score.count, len(tokens) if info["score_prefix_token"] is not None else len(tokens) - 1)
        if info["score_prefix_token"] is not None:
            by_tokens = self.client.score(tokens=[info["score_prefix_token"], *tokens])
            self.assertAlmostEqual(by_tokens.nats, score.nats, delta=1e-4)
            self.assertAlmostEqual(score.bits_per_byte, score.nats / math.log(2) / 19, places=6)

    def test_embedding_of_text_is_that_of_its_tokens(self) -> None:
        text = "The court held that"
        tokens = self.client.tokenize(text, add_special=True)
        found = self.client.embed(text)
        self.assertEqual(found.embedding, self.client.embed(tokens=tokens).embedding)
        with self.assertRaisesRegex(chimera_client.InvalidArgument, "embed.text: empty"):
            self.client.embed("")
        shown = json.loads(self.daemon.cli("--json", "embed", text).stdout)
        self.assertEqual(shown["embedding"], found.embedding)
        table = self.daemon.cli("embed", text, text, "A cell divides").stdout.splitlines()
        self.assertEqual([line.split()[-3] for line in table[1:3]], ["1.000", "1.000"])

    def test_command_line_score_of_a_long_text(self) -> None:
        """Longer than the context: cut into windows, each of which the daemon scores."""
        info = self.client.info()
        prefix, context = info["score_prefix_token"], info["context"]
        text = self.TEXT * 40
        path = Path(self.scratch.name) / "long.txt"
        path.write_text(text)
        result = json.loads(self.daemon.cli("--json", "score", str(path)).stdout)
        self.assertEqual(result["bytes"], len(text.encode()))
        if prefix is None:
            return
        tokens, nats = self.client.tokenize(text), 0.0
        for at in range(0, len(tokens), context - 1):
            nats += self.client.score(tokens=[prefix, *tokens[at:at + context - 1]]).nats
        self.assertEqual(result["tokens"], len(tokens))
        self.assertAlmostEqual(result["nats"], nats, delta=1e-3 * abs(nats))

    def test_command_line_generate_streams_text(self) -> None:
        done = self.daemon.cli("generate", "The court", "--max-tokens", "8", "--temperature", "0", "--ignore-eos")
        whole = self.client.complete("The court", max_tokens=8, temperature=0, ignore_eos=True)
        self.assertEqual(done.stdout, whole["text"] + "\n")


class DrainTest(unittest.TestCase):
    def test_drain_then_shutdown(self) -> None:
        with tempfile.TemporaryDirectory() as work:
            daemon = Daemon(GOLDEN / "flex_olmo_f32", work=Path(work))
            with daemon.client() as client:
                self.assertTrue(client.drain(5000))
                self.assertEqual(client.health()["status"], "draining")
                with self.assertRaises(chimera_client.Unavailable):
                    client.complete(tokens=[1], max_tokens=1)
                client.shutdown()
            self.assertEqual(daemon.process.wait(60 * SLOW), 0)


if __name__ == "__main__":
    unittest.main()
