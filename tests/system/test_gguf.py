#!/usr/bin/env python3
"""GGUF files: every block type number by number, whole models bit by bit, and broken files.

Files and expected numbers come from gguf_files.py, which is written from the format's description.
"""
from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import numpy as np

import gguf_files as gguf
from harness import BIN, GOLDEN, SHARED_GOLDEN, SOURCE, Daemon, npm_folder, run, split

# Types that `precision: q4` keeps as they are.
FEW = ("Q2_K", "Q3_K", "Q4_K", "IQ4_NL", "MXFP4")
TOKENS = list(range(3, 60))
# What GGUF can say of the goldens; the others have options that its metadata has no keys for.
FAMILIES = {"olmoe_bf16": "BF16", "mixtral_bf16": "BF16", "families/mixtral_yarn": "F32",
            "families/llama_biases": "F32", "families/llama4_scout": "F32", "families/gpt_oss": "F32",
            "families/qwen2_moe": "F32", "families/deepseek_v2_grouped": "F32",
            "families/deepseek_v2_lite": "F32"}
SHARED = {"deepseek_v3_f32": "F32", "qwen3_moe_f32": "F32", "qwen3_tied_bf16": "BF16",
          "llama_f32": "F32", "llama4_text_f32": "F32"}


# And what is in their config.json that it has no keys for: these are tested without.
UNSAID = {"families/mixtral_yarn": {"sliding_window": None},
          "llama4_text_f32": {"floor_scale": 8192}}


def models(work: pathlib.Path):
    for goldens, models in ((GOLDEN, FAMILIES), (SHARED_GOLDEN / "models", SHARED)):
        for name, kind in models.items():
            checkpoint = goldens / name
            if not checkpoint.exists():
                continue  # one of the shared set
            if name in UNSAID:
                checkpoint = work / pathlib.Path(name).name
                shutil.copytree(goldens / name, checkpoint)
                config = json.loads((checkpoint / "config.json").read_text()) | UNSAID[name]
                (checkpoint / "config.json").write_text(json.dumps(config))
            yield name, checkpoint, kind


def logits(path: pathlib.Path, **options) -> np.ndarray:
    with Daemon(path, **options) as daemon, daemon.client() as client:
        return client.score(tokens=TOKENS, logits=True).logits


def converted(path: pathlib.Path, out: pathlib.Path, kind: str) -> dict[str, np.ndarray]:
    run("chimera", "module", "convert", str(path), "--out", str(out), "--type", kind)
    return gguf.read_checkpoint(out)[1]


class Work(unittest.TestCase):
    def setUp(self) -> None:
        self.work = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.work)


class Blocks(Work):
    def test_every_type_number_by_number(self) -> None:
        rng = np.random.default_rng(20)
        hidden, width, experts, vocab = 256, 512, 2, 32
        shapes = {"token_embd": (vocab, hidden), "output": (vocab, hidden),
                  "blk.0.attn_q": (hidden, hidden), "blk.0.attn_k": (hidden, hidden),
                  "blk.0.attn_v": (hidden, hidden), "blk.0.attn_output": (hidden, hidden),
                  "blk.0.ffn_gate_exps": (experts, width, hidden),
                  "blk.0.ffn_up_exps": (experts, width, hidden),
                  "blk.0.ffn_down_exps": (experts, hidden, width)}
        vectors = {"output_norm": hidden, "blk.0.attn_norm": hidden, "blk.0.ffn_norm": hidden,
                   "blk.0.attn_q_norm": hidden, "blk.0.attn_k_norm": hidden}
        metadata = {"general.architecture": "olmoe"} | {f"olmoe.{k}": v for k, v in {
            "embedding_length": hidden, "block_count": 1, "context_length": 64,
            "attention.head_count": 4, "feed_forward_length": width, "expert_count": experts,
            "expert_used_count": 1}.items()}
        for kind in gguf.BLOCKS:
            with self.subTest(kind):
                tensors = [(n + ".weight", (s,), "F32", np.ones(s, "<f4").tobytes())
                           for n, s in vectors.items()]
                tensors.append(("blk.0.ffn_gate_inp.weight", (experts, hidden), "F32",
                                rng.normal(size=(experts, hidden)).astype("<f4").tobytes()))
                expected = {}
                for name, shape in shapes.items():
                    blob = gguf.random_blocks(kind, int(np.prod(shape)), rng)
                    tensors.append((name + ".weight", shape, kind, blob))
                    expected[name] = gguf.dequantise(blob, kind, shape)
                path = self.work / f"{kind}.gguf"
                path.write_bytes(gguf.container(metadata, tensors))
                found = converted(path, self.work / kind, "f32")
                layer = "model.layers.0."
                pairs = [("token_embd", "model.embed_tokens.weight"), ("output", "lm_head.weight")]
                pairs += [(f"blk.0.attn_{a}", f"{layer}self_attn.{a[0]}_proj.weight")
                          for a in ("q", "k", "v", "output")]
                for ours, theirs in pairs:
                    np.testing.assert_array_equal(found[theirs].view(np.uint32),
                                                  expected[ours].view(np.uint32), theirs)
                for part in ("gate", "up", "down"):
                    for e in range(experts):
                        name = f"{layer}mlp.experts.{e}.{part}_proj.weight"
                        np.testing.assert_array_equal(
                            found[name].view(np.uint32),
                            expected[f"blk.0.ffn_{part}_exps"][e].view(np.uint32), name)
                # It runs as it is, and rounds to other types as anybody would.
                if kind.endswith("_K") or kind in FEW:
                    self.packed(path, kind)
                if kind in ("Q8_0", "Q6_K"):
                    self.assertTrue(np.isfinite(logits_of_random(path)).all())
                    half = converted(path, self.work / f"{kind}-half", "f16")
                    np.testing.assert_array_equal(
                        half["lm_head.weight"],
                        expected["output"].astype(np.float16).astype(np.float32))


    def packed(self, path: pathlib.Path, kind: str) -> None:
        """Such types run number for number: what differs from F32 is the rounding of activations."""
        exact = logits_of_random(path, precision="f32").astype(np.float64)
        found = logits_of_random(path, precision="q8").astype(np.float64)
        error = np.sqrt(np.square(found - exact).mean()) / exact.std()
        self.assertGreater(error, 0, kind)
        # Random weights saturate every softmax, so no bound follows; numbers in wrong places give
        # 1.4. (Products alone are held to a derived bound by compute/kernels/packed_test.cc.)
        self.assertLess(error, 0.2, kind)
        few = logits_of_random(path, precision={"experts": "q4", "attention": "q8", "head": "q8"})
        same = np.array_equal(few.astype(np.float64), found)
        self.assertEqual(same, kind in FEW, kind)
        cut = split(path, path.with_suffix(".cut"), a="1")
        again = logits_of_random(cut / "backbone", precision="q8",
                                 modules=[{"path": str(cut / "modules" / "a")}], top_k=1)
        np.testing.assert_array_equal(again.astype(np.float64), found, kind)


def logits_of_random(path: pathlib.Path, **options) -> np.ndarray:
    with Daemon(path, **options) as daemon, daemon.client() as client:
        return client.score(tokens=[1, 5, 9, 31], logits=True).logits


class Models(Work):
    def test_logits_are_those_of_the_checkpoint_bit_for_bit(self) -> None:
        for name, checkpoint, kind in models(self.work):
            with self.subTest(name):
                path = self.work / (name.replace("/", "-") + ".gguf")
                gguf.convert(checkpoint, path, kind)
                np.testing.assert_array_equal(logits(path).view(np.uint32),
                                              logits(checkpoint).view(np.uint32))

    def test_half_precision_generates_the_same_tokens(self) -> None:
        path = self.work / "half.gguf"
        gguf.convert(GOLDEN / "olmoe_bf16", path, "F16")
        tokens = []
        for model in (path, GOLDEN / "olmoe_bf16"):
            with Daemon(model) as daemon, daemon.client() as client:
                answer = client.complete(tokens=TOKENS[:9], max_tokens=24, temperature=0,
                                         ignore_eos=True)
                tokens.append(answer["tokens"])
        self.assertEqual(*tokens)

    def test_half_precision_has_the_bits_of_the_same_numbers_in_f32(self) -> None:
        half = self.work / "half.gguf"
        gguf.convert(GOLDEN / "olmoe_bf16", half, "F16")
        converted(half, self.work / "wide", "f32")
        with Daemon(half) as narrow, Daemon(self.work / "wide") as wide:
            found = []
            for daemon in (narrow, wide):
                with daemon.client() as client:
                    found.append(client.score(tokens=TOKENS, logits=True).logits)
            np.testing.assert_array_equal(found[0].view(np.uint32), found[1].view(np.uint32))

    def test_a_split_file_is_the_whole(self) -> None:
        whole = self.work / "whole.gguf"
        gguf.convert(GOLDEN / "olmoe_bf16", whole, "BF16")
        gguf.convert(GOLDEN / "olmoe_bf16", self.work / "part", "BF16", parts=3)
        first = self.work / "part-00001-of-00003.gguf"
        np.testing.assert_array_equal(logits(first), logits(whole))
        second = self.work / "part-00002-of-00003.gguf"
        self.assertIn("part 2 of 3", refusal(second))
        second.unlink()
        self.assertIn("part-00002-of-00003.gguf", refusal(first))

    def test_modules_cut_from_blocks_give_the_whole_again(self) -> None:
        whole = self.work / "whole.gguf"
        gguf.convert(GOLDEN / "olmoe_bf16", whole, "Q8_0")
        parts = split(whole, self.work / "cut", a="10-12", b="13-15")
        modules = [{"path": str(parts / "modules" / m)} for m in "ab"]
        for precision in ("f32", "q8"):
            np.testing.assert_array_equal(
                logits(parts / "backbone", modules=modules, top_k=6, precision=precision),
                logits(whole, precision=precision))
        report = json.loads(run("chimera", "--json", "module", "inspect",
                                str(parts / "modules" / "a")).stdout)
        self.assertIn("Q8_0", json.dumps(report))
        run("chimera", "module", "verify", str(parts / "modules" / "a"), "--backbone",
            str(parts / "backbone"))
        run("chimera", "module", "graft", str(parts / "backbone"), *(str(parts / "modules" / m) for m in "ab"),
            "--out", str(self.work / "grafted"))
        np.testing.assert_array_equal(logits(self.work / "grafted"), logits(whole))

    def test_inspect_tells_what_it_is(self) -> None:
        path = self.work / "model.gguf"
        gguf.convert(GOLDEN / "olmoe_bf16", path, "Q8_0")
        report = json.loads(run("chimera", "--json", "module", "inspect", str(path)).stdout)
        self.assertTrue(report["runs"], report)
        self.assertEqual((report["model_type"], report["experts_per_layer"]), ("olmoe", 16))
        self.assertIn("Q8_0", report["dtype"])


class Texts(Work):
    def test_tokenizer_and_chat_template(self) -> None:
        tokenizer = json.loads((GOLDEN / "tiny312_tokenizer.json").read_text())
        template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{{ eos_token }}"
        extra = gguf.vocabulary(tokenizer, "llama-bpe", bos_token_id=300, eos_token_id=301)
        extra["tokenizer.chat_template"] = template
        path = self.work / "model.gguf"
        gguf.convert(GOLDEN / "olmoe_bf16", path, "BF16", extra)
        plain = self.work / "plain"
        shutil.copytree(GOLDEN / "olmoe_bf16", plain)
        shutil.copy(GOLDEN / "tiny312_tokenizer.json", plain / "tokenizer.json")
        texts = ["Hello, world!  It's 12345 o'clock.\n\n", "naïve café — ΑΒΓ 漢字 🙂", " leading", ""]
        answers = []
        for model in (path, plain):
            with Daemon(model) as daemon, daemon.client() as client:
                answers.append([client.tokenize(t) for t in texts])
                if model == path:
                    self.assertTrue(client.info()["has_chat_template"])
        self.assertEqual(*answers)

    def test_text_is_cut_as_deepseek_cuts_it(self) -> None:
        """Merges that reach over a cut are not made: which are, shows the cuts."""
        letters = {chr(b): i for i, b in enumerate(range(33, 127))} | {"\u0120": 94, "\u010a": 95}
        merges = ["\u010a \u010a", "a b", "b 1", "1 2", "! !", "\u0120 !", "\u0120 a", "b \u0120"]
        vocab = letters | {m.replace(" ", ""): 96 + i for i, m in enumerate(merges)}
        tokenizer = {"model": {"vocab": vocab, "merges": merges}, "added_tokens": []}
        names = {i: t.replace("\u0120", " ").replace("\u010a", "/") for t, i in vocab.items()}
        for pre, expected in (("deepseek-llm", ["ab", "12", "/", "/", " a", "!!", " !", " ", " "]),
                              ("deepseek-coder", ["ab", "1", "2", "/", "/", " a", "!!", " !", " ", " "]),
                              ("gpt-2", ["ab", "12", "//", " a", "!!", " !", " ", " "])):
            path = self.work / "model.gguf"
            gguf.convert(GOLDEN / "olmoe_bf16", path, "BF16",
                         gguf.vocabulary(tokenizer, pre, eos_token_id=0))
            with Daemon(path) as daemon, daemon.client() as client:
                tokens = client.tokenize("ab12\n\n a!! !  ")
            self.assertEqual([names[t] for t in tokens], expected, pre)

    def test_unknown_vocabularies_are_refused_by_name(self) -> None:
        tokenizer = json.loads((GOLDEN / "tiny312_tokenizer.json").read_text())
        path = self.work / "model.gguf"
        for key, value in (("pre", "poro-chat"), ("model", "bert")):
            extra = gguf.vocabulary(tokenizer, "gpt-2") | {f"tokenizer.ggml.{key}": value}
            gguf.convert(GOLDEN / "olmoe_bf16", path, "BF16", extra)
            self.assertIn(value, refusal(path))


def refusal(path: pathlib.Path) -> str:
    """What `inspect` says of a file that does not run."""
    done = subprocess.run([BIN / "chimera", "module", "inspect", path], text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 1, (path, done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith("chimera: "), done.stderr
    return done.stderr


class Container(Work):
    """The files that these tests are made of, as @huggingface/gguf from npm reads them (tests/gguf_js).
    Without node, or where npm's registry cannot be reached, this is skipped and says so."""

    def read(self, path: pathlib.Path) -> dict:
        done = subprocess.run(["node", "read.mjs", path], cwd=npm_folder(SOURCE / "tests" / "gguf_js"),
                              text=True, capture_output=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        return json.loads(done.stdout)

    def test_every_type_and_key_is_where_another_reader_finds_it(self) -> None:
        rng = np.random.default_rng(3)
        metadata = {"general.architecture": "olmoe", "general.alignment": 64, "olmoe.block_count": 3,
                    "olmoe.rope.freq_base": 10000.0, "olmoe.flag": True,
                    "tokenizer.ggml.tokens": ["<s>", "a", "ü"]}
        tensors = []
        for number, kind in enumerate(gguf.TYPES):
            shape = (3, 512) if number % 2 else (2, 3, 256)
            _, elements, size = gguf.TYPES[kind]
            blob = rng.integers(0, 256, 3 * 512 // elements * size, np.uint8).tobytes()
            tensors.append((f"blk.{number}.weight", shape, kind, blob))
        path = self.work / "all.gguf"
        image = gguf.container(metadata, tensors, alignment=64)
        path.write_bytes(image)
        found = self.read(path)
        for key, value in metadata.items():
            self.assertEqual(found["metadata"][key], value, key)
        self.assertEqual(len(found["tensors"]), len(tensors))
        for ours, (name, shape, kind, blob) in zip(found["tensors"], tensors):
            self.assertEqual((ours["name"], ours["type"]), (name, kind))
            self.assertEqual(ours["shape"], list(reversed(shape)))
            begin = found["start"] + ours["offset"]
            self.assertEqual(image[begin:begin + len(blob)], blob, name)

    def test_a_model_that_runs_here_is_read_there(self) -> None:
        path = self.work / "model.gguf"
        gguf.convert(GOLDEN / "olmoe_bf16", path, "Q8_0")
        found = self.read(path)
        self.assertEqual(found["metadata"]["general.architecture"], "olmoe")
        report = json.loads(run("chimera", "--json", "module", "inspect", str(path)).stdout)
        self.assertTrue(report["runs"], report)
        self.assertEqual(report["layers"], found["metadata"]["olmoe.block_count"])
        self.assertIn("Q8_0", {t["type"] for t in found["tensors"]})


class Broken(Work):
    def test_whole_samples_run(self) -> None:
        for name, image in gguf.samples().items():
            if name in ("ok-olmoe", "ok-llama"):
                path = self.work / f"{name}.gguf"
                path.write_bytes(image)
                told = run("chimera", "module", "inspect", str(path)).stdout
                self.assertRegex(told, r"(?m)^tokenizer +yes$")

    def test_every_broken_file_is_refused_with_its_name(self) -> None:
        for name, image in gguf.samples().items():
            if name.startswith("ok-") or name in ("magic",):
                continue
            with self.subTest(name):
                path = self.work / f"{name}.gguf"
                path.write_bytes(image)
                self.assertIn(f"{name}.gguf", refusal(path))

    def test_a_file_that_is_not_there_is_told_as_such(self) -> None:
        path = self.work / "nowhere.gguf"
        daemon = Daemon(path, start=False)
        self.addCleanup(shutil.rmtree, daemon.work, ignore_errors=True)
        said = run("chimerad", "--config", daemon.config, "--check", check=False).stderr
        self.assertIn(f"{path}: No such file", said)

    def test_other_architectures_and_types_are_refused_by_name(self) -> None:
        path = self.work / "model.gguf"
        gguf.convert(GOLDEN / "olmoe_bf16", path, "BF16", {"general.architecture": "mamba"})
        self.assertIn("mamba", refusal(path))
        image = gguf.samples()["type-iq1-s"]
        path.write_bytes(image)
        self.assertIn("IQ1_S", refusal(path))


if __name__ == "__main__":
    unittest.main()
