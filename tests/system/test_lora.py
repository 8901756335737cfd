"""Adapters (kind lora): loaded as PEFT writes them, against weights that NumPy merged.

The merged checkpoints go through the independent forward pass of the shared golden set where it is
there, else through a daemon of their own.
"""
from __future__ import annotations

import json
import pathlib
import shutil
import tempfile
import threading
import unittest

from harness import Daemon, Reader, endless, flat, run

try:
    import numpy as np
    import random_checkpoint
    from assembly_parents import read_tensors, to_f64
    from lora_adapters import ATTENTION, FEED_FORWARD, LATENT, Adapter, Stacks, merge
    from test_random_families import LOGITS, REFERENCE, reference_model
    MISSING = None
except ImportError as error:
    MISSING = str(error)

LENGTH = 37
CONTEXT = 64


def drawn(family: str, directory: pathlib.Path, good=lambda config: True, fused: bool = False,
          dtype: str = "") -> dict:
    """The first random checkpoint of the family that is not quantised, with experts one by one or in
    stacks, stored as `dtype` if it is given."""
    for seed in range(200):
        shutil.rmtree(directory, ignore_errors=True)
        config = random_checkpoint.build(family, seed, directory)
        if config["num_hidden_layers"] < 2 or config.get("quantization_config") or not good(config):
            continue
        header = (directory / "model.safetensors").read_bytes()[:200_000]
        stacked = b"experts.gate_up_proj" in header
        if stacked == fused and f'"dtype": "{dtype}'.encode() in header[:300]:
            return config
    raise AssertionError(f"no {family}")


def packable(checkpoint: pathlib.Path, out: pathlib.Path, dense: int) -> pathlib.Path:
    """The checkpoint with matrices that packing changes no number of: integers up to 127 (`dense`: of
    feed-forwards, 8 for q4) in steps of a power of two, which each block of 32 inputs reaches."""
    out.mkdir()
    tensors = {}
    for name, (dtype, shape, blob) in read_tensors(checkpoint).items():
        values = to_f64(dtype, shape, blob)
        kept = len(shape) != 2 or "embed_tokens" in name
        most = dense if ".mlp." in name else 127
        for begin in range(0, 0 if kept else shape[1], 32):
            block = values[:, begin:begin + 32]
            step = 2.0 ** np.ceil(np.log2(np.abs(block).max(axis=1, keepdims=True) / most))
            codes = np.clip(np.rint(block / step), 1 - most, most - 1)
            codes[np.arange(shape[0]), np.abs(codes).argmax(axis=1)] = -most
            values[:, begin:begin + 32] = codes * step
        tensors[name] = ("F32", values.astype(np.float32))
    random_checkpoint.write_safetensors(out / "model.safetensors", tensors)
    shutil.copy(checkpoint / "config.json", out / "config.json")
    return out


@unittest.skipIf(MISSING, MISSING)
class Lora(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.dir = pathlib.Path(self.scratch.name)

    def score(self, client, ids, **modules):
        done = client.score(tokens=ids.tolist(), logits=True, **({"modules": modules} if modules else {}))
        return np.array(flat(done.logits), np.float32).reshape(len(ids), -1)

    def merged_logits(self, directory: pathlib.Path, ids):
        if REFERENCE.exists():
            return reference_model(directory).forward(ids)[0]
        with Daemon(directory, serve={"max_context": CONTEXT}) as daemon, daemon.client() as client:
            return self.score(client, ids)

    # --- against merged weights --------------------------------------------------------------------------

    def check_family(self, family: str, adapters: dict, good=lambda config: True, fused=False) -> None:
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=self.scratch.name))
        base = self.dir / family
        config = drawn(family, base, good, fused)
        ids = np.random.default_rng(1).integers(0, config["vocab_size"], LENGTH)
        made = {name: (Stacks if "layout" in options else Adapter)(base, seed=i, **options)
                for i, (name, options) in enumerate(adapters.items())}
        with Daemon(base, serve={"max_context": CONTEXT}) as daemon, daemon.client() as client:
            plain = self.score(client, ids)
            for name, adapter in made.items():
                loaded = client.load(adapter.write(self.dir / f"{family}-adapters" / name))
                self.assertEqual(loaded["changes"][0]["module"], name)
                with self.subTest(family=family, adapter=name, config=config):
                    expected = self.merged_logits(merge(base, self.dir / f"{family}-{name}", adapter), ids)
                    found = self.score(client, ids, adapters=[name])
                    self.assertLessEqual(np.abs(found - expected).max(), LOGITS)
                    self.assertGreater(np.abs(found - plain).max(), 20 * LOGITS, "it changes nothing")
                    np.testing.assert_array_equal(self.score(client, ids, only=[name]), found)
            # Not named, or excluded: the bits of a daemon that has none of them.
            np.testing.assert_array_equal(self.score(client, ids), plain)
            np.testing.assert_array_equal(
                self.score(client, ids, adapters=list(made), exclude=list(made)), plain)
            both = list(made)[:2]
            expected = self.merged_logits(merge(base, self.dir / f"{family}-both", *(made[n] for n in both)), ids)
            found = self.score(client, ids, adapters=both)
            self.assertLessEqual(np.abs(found - expected).max(), 2 * LOGITS)

    def test_dense(self) -> None:
        for family in ("llama", "qwen3"):
            self.check_family(family, {
                "attention": {"targets": ATTENTION, "rank": 3},
                "all": {"targets": ATTENTION + FEED_FORWARD, "dtype": "BF16", "rank": 16, "alpha": 16,
                        "rslora": True},
                "some-layers": {"targets": ["v_proj", "down_proj"], "layers": [1], "dtype": "F16"}})

    def test_mixture_of_experts(self) -> None:
        self.check_family("qwen2_moe", {
            "attention": {"targets": ["q_proj", "o_proj"]},
            "patterns": {"targets": ATTENTION + FEED_FORWARD, "rank": 4,
                         "rank_pattern": {r"layers\.0\.self_attn\.q_proj": 9, "v_proj": 1},
                         "alpha_pattern": {"o_proj": 1.5, r".*mlp\.shared_expert\.up_proj": 3}},
            "shared": {"targets": ["shared_expert_gate", "down_proj"], "dtype": "BF16"}},
            good=lambda c: not c["mlp_only_layers"])
        self.check_family("mixtral", {
            "experts": {"targets": ["w1", "w2", "w3"], "rank": 2},
            "k": {"targets": ["k_proj"], "rank": 17}})

    def test_latent_attention(self) -> None:
        for low_rank in (False, True):
            self.check_family("deepseek_v3", {
                "latent": {"targets": LATENT, "rank": 5},
                "kv": {"targets": ["kv_b_proj"], "dtype": "BF16"},
                "feed-forwards": {"targets": FEED_FORWARD, "dtype": "F16"}},
                good=lambda c: c["first_k_dense_replace"] == 1 and (c["q_lora_rank"] is not None) == low_rank)

    def test_stacks_of_experts(self) -> None:
        kinds = {"peft": {"layout": "peft"}, "reversed": {"layout": "peft", "nested": "down_proj", "dtype": "BF16"},
                 "old": {"layout": "peft-0.17", "dtype": "F16"}, "shared": {"layout": "shared-outer", "rank": 5}}
        routed = lambda c: not c["mlp_only_layers"]
        for fused in (False, True):
            self.check_family("qwen3_moe", kinds, routed, fused)
        native = lambda **more: {n: {**k, "transposed": True, **more} for n, k in kinds.items() if n != "old"}
        self.check_family("gpt_oss", native(), fused=True)
        self.check_family("llama4_text", native(module="feed_forward.experts"),
                          lambda c: not c.get("moe_layers") and c["interleave_moe_layer_step"] == 1, fused=True)

    def test_dora(self) -> None:
        self.check_family("llama", {
            "attention": {"targets": ATTENTION, "rank": 3, "use_dora": True},
            "all": {"targets": ATTENTION + FEED_FORWARD, "dtype": "BF16", "rank": 16, "alpha": 16,
                    "rslora": True, "use_dora": True},
            "plain": {"targets": ATTENTION + FEED_FORWARD}})
        self.check_family("qwen2_moe", {
            "all": {"targets": ATTENTION + FEED_FORWARD + ["shared_expert_gate"], "use_dora": True},
            "patterns": {"targets": ATTENTION + FEED_FORWARD, "rank_pattern": {"v_proj": 1},
                         "alpha_pattern": {"o_proj": 1.5}, "use_dora": True, "dtype": "F16"}},
            good=lambda c: not c["mlp_only_layers"])
        self.check_family("mixtral", {
            "experts": {"targets": ["w1", "w2", "w3"], "rank": 2, "use_dora": True},
            "k": {"targets": ["k_proj"], "rank": 17, "use_dora": True}})
        self.check_family("deepseek_v3", {
            "latent": {"targets": [n for n in LATENT if n != "kv_b_proj"], "use_dora": True},
            "feed-forwards": {"targets": FEED_FORWARD, "dtype": "F16", "use_dora": True}},
            good=lambda c: c["first_k_dense_replace"] == 1 and c["q_lora_rank"] is not None)

    def test_what_dora_cannot_be_is_named(self) -> None:
        base = self.model()
        good = Adapter(base, ATTENTION, seed=1, use_dora=True)
        tensors = good.tensors()
        vector = sorted(n for n in tensors if n.endswith("lora_magnitude_vector"))[0]
        part = vector.removesuffix(".lora_magnitude_vector")
        length = tensors[vector][1].shape[0]
        zero = {**tensors, f"{part}.lora_B.weight": ("F32", np.zeros_like(tensors[f"{part}.lora_B.weight"][1]))}
        stacks = Stacks(base, "peft", 3)
        stacks.config["use_dora"] = True
        shared = Stacks(base, "shared-outer", 3)
        shared.config["use_dora"] = True
        latent = self.dir / "latent"
        drawn("deepseek_v3", latent)
        cases = {
            "missing": (good, {n: t for n, t in tensors.items() if n != vector}, ["use_dora", "lora_magnitude_vector"]),
            "alone": (good, {n: t for n, t in tensors.items() if not n.startswith(part + ".lora_A") and
                             not n.startswith(part + ".lora_B")}, [vector, "without lora_A"]),
            "twice": (good, {**tensors, vector + ".weight": tensors[vector]}, [vector, "beside"]),
            "shape": (good, {**tensors, vector: ("F32", np.ones((1, length), np.float32))}, [vector, f"[1, {length}]"]),
            "nan": (good, {**tensors, vector: ("F32", np.full(length, np.nan, np.float32))}, [vector, "nan"]),
            "stacks": (stacks, None, ["use_dora", "target_parameters"]),
            "shared": (shared, None, ["use_dora", "experts"]),
        }
        with Daemon(base, serve={"max_context": CONTEXT}) as daemon, daemon.client() as client:
            for name, (adapter, content, words) in cases.items():
                with self.subTest(name):
                    with self.assertRaises(Exception) as raised:
                        client.load(adapter.write(self.dir / "dora" / name, content))
                    for word in words:
                        self.assertIn(word.lower(), str(raised.exception).lower())
            client.load(good.write(self.dir / "dora" / "good", zero))
            # As PEFT's own module has it.
            good.suffix = ".weight"
            client.load(good.write(self.dir / "dora" / "spelled"))
            run("chimera", "module", "verify", str(self.dir / "dora" / "spelled"), "--backbone", str(base))
        with Daemon(latent, serve={"max_context": CONTEXT}) as daemon, daemon.client() as client:
            with self.assertRaisesRegex(Exception, "kv_b_proj"):
                client.load(Adapter(latent, ["kv_b_proj"], seed=1, use_dora=True).write(self.dir / "cut-up"))

    def test_dora_of_weights_that_are_packed(self) -> None:
        """The factors divide by the lengths of the rows that are used: of packed weights, the numbers they
        stand for. Here these are those of the checkpoint, so that NumPy merges what the daemon packs."""
        drawn("llama", self.dir / "drawn")  # no choice of experts that could turn
        ids = np.random.default_rng(1).integers(0, 20, LENGTH)
        for precision, codes in (("q8", 127), ("q4", 8)):
            base = packable(self.dir / "drawn", self.dir / f"base-{precision}", codes)
            dora = Adapter(base, ATTENTION, seed=1, use_dora=True)
            plain = self.merged_logits(base, ids)
            merged = self.merged_logits(merge(base, self.dir / f"merged-{precision}", dora), ids)
            written = dora.write(self.dir / f"adapter-{precision}")
            dora.magnitudes = {}
            lora = self.merged_logits(merge(base, self.dir / f"lora-{precision}", dora), ids)
            with Daemon(base, serve={"max_context": CONTEXT}, precision=precision) as daemon, \
                    daemon.client() as client:
                alone = self.score(client, ids)
                client.load(written)
                found = self.score(client, ids, adapters=[written.name])
                np.testing.assert_array_equal(self.score(client, ids), alone)
            # What products of packed weights lose, the inputs rounded to eight bits, they lose without an
            # adapter, too; the factors of the changed rows lie within 0.6 to 1.4 of their lengths.
            loses = np.abs(alone - plain).max()
            self.assertLessEqual(np.abs(found - merged).max(), 3 * loses)
            self.assertGreater(np.abs(lora - merged).max(), 8 * loses, "the magnitudes change nothing")

    # --- beside one another ------------------------------------------------------------------------------

    def model(self):
        base = self.dir / "base"
        drawn("qwen3_moe", base, lambda c: not c["mlp_only_layers"])
        return base

    def test_many_in_one_batch_are_each_as_alone(self) -> None:
        base = self.model()
        names = [f"a{i}" for i in range(8)]
        for i, name in enumerate(names):
            Adapter(base, ATTENTION + FEED_FORWARD, seed=i, rank=16, use_dora=i % 3 == 1).write(self.dir / name)
        with Daemon(base, serve={"max_context": CONTEXT}, threads=2,
                    modules=[{"path": str(self.dir / name)} for name in names]) as daemon, \
                daemon.client() as client:
            choices = [[], *([name] for name in names), ["a1", "a2"], ["a1"], []]
            ask = lambda i: client.complete(
                tokens=[i + 1, 2, 3], max_tokens=40, temperature=0, ignore_eos=True, logprobs=True,
                modules={"adapters": choices[i]})
            alone = [ask(i) for i in range(len(choices))]
            requests = [client.send("generate", tokens=[i + 1, 2, 3], max_tokens=40, temperature=0,
                                    ignore_eos=True, logprobs=True, stream=False, modules={"adapters": choice})
                        for i, choice in enumerate(choices)]
            for i, request in enumerate(requests):
                with self.subTest(i):
                    done = client.receive("generate", request).body
                    self.assertEqual(done["tokens"], alone[i]["tokens"])
                    self.assertEqual(done["logprobs"], alone[i]["logprobs"])
                    used = done["provenance"]["modules"]
                    self.assertEqual(sorted(used), sorted(choices[i]))

    def test_loads_and_swaps_while_streams_run(self) -> None:
        base = self.model()
        endless(base)
        stays = Adapter(base, ATTENTION, seed=1).write(self.dir / "stays")
        v1 = Adapter(base, ATTENTION + FEED_FORWARD, seed=2).write(self.dir / "one" / "comes")
        v2 = Adapter(base, ATTENTION, seed=3).write(self.dir / "two" / "comes")
        with Daemon(base, serve={"max_context": CONTEXT}, modules=[{"path": str(stays)}]) as daemon, \
                daemon.client() as client:
            request = {"tokens": [1, 2, 3], "max_tokens": 50, "temperature": 0, "ignore_eos": True}
            quiet = [client.complete(**request, modules={"adapters": names})["tokens"]
                     for names in ([], ["stays"])]
            client.load(v1)
            first = client.complete(**request, modules={"adapters": ["comes"]})["tokens"]
            stop = threading.Event()
            seen: list = [[], []]

            def stream(i: int, names: list[str]) -> None:
                with daemon.client() as own:
                    while not stop.is_set():
                        seen[i].append(own.complete(**request, modules={"adapters": names})["tokens"])

            threads = [threading.Thread(target=stream, args=(i, names))
                       for i, names in enumerate(([], ["stays"]))]
            for thread in threads:
                thread.start()
            second = None
            for _ in range(5):
                client.load(v2)
                second = client.complete(**request, modules={"adapters": ["comes"]})["tokens"]
                client.unload("comes")
                with self.assertRaises(Exception):
                    client.complete(**request, modules={"adapters": ["comes"]})
                client.load(v1)
                again = client.complete(**request, modules={"adapters": ["comes"]})["tokens"]
                self.assertEqual(again, first, "cached prefixes of the other version")
            stop.set()
            for thread in threads:
                thread.join()
            self.assertNotEqual(first, second)
            for i in range(2):
                self.assertGreater(len(seen[i]), 0)
                self.assertTrue(all(tokens == quiet[i] for tokens in seen[i]))
            client.revoke("comes")
            self.assertEqual([m["name"] for m in client.modules()], ["stays"])

    def test_prefixes_are_those_of_the_adapters(self) -> None:
        base = self.model()
        computed = {"a": 0, "b": 0}  # tokens, with each: all but the last one, and what was cached
        with Daemon(base, serve={"max_context": CONTEXT}) as daemon, daemon.client() as client:
            client.load(Adapter(base, ATTENTION, seed=1).write(self.dir / "a"))
            client.load(Adapter(base, ATTENTION, seed=2).write(self.dir / "b"))
            ids = np.random.default_rng(4).integers(0, 96, 48).tolist()
            ask = lambda names: client.complete(tokens=ids, max_tokens=8, temperature=0, ignore_eos=True,
                                                logprobs=True, modules={"adapters": names})
            for names in ([], ["a"], ["b"], ["a", "b"]):
                cold, warm = ask(names), ask(names)
                self.assertEqual(cold["usage"]["cached_tokens"], 0)
                self.assertGreater(warm["usage"]["cached_tokens"], 0)
                self.assertEqual((cold["tokens"], cold["logprobs"]), (warm["tokens"], warm["logprobs"]))
                for answer in (cold, warm):
                    rows = {name: module["rows"] for name, module in answer["provenance"]["modules"].items()}
                    self.assertEqual(rows, {name: 48 + 7 - answer["usage"]["cached_tokens"] for name in names})
                    for name in names:
                        computed[name] += rows[name]
            billed = {"a": 0, "b": 0}
            for row in client.usage():
                if row["module"] in billed:
                    billed[row["module"]] += row["rows"]
                    self.assertEqual((row["requests"], row["share"]), (4, 0))
            self.assertEqual(billed, computed)

    def test_survives_a_restart_and_is_told_of(self) -> None:
        base = self.model()
        at = Adapter(base, ATTENTION, seed=1).write(self.dir / "My.Adapter")
        with Daemon(base, serve={"max_context": CONTEXT}) as daemon, daemon.client() as client:
            client.load(at)
            ids = np.arange(20)
            before = self.score(client, ids, adapters=["my-adapter"])
            (module,) = client.modules()
            self.assertEqual((module["name"], module["kind"], module["experts"]), ("my-adapter", "lora", 0))
            self.assertGreater(module["resident_bytes"], (at / "adapter_model.safetensors").stat().st_size)
            self.assertEqual(client.info()["modules"][0]["kind"], "lora")
            planned = client.plan({"modules": [{"path": str(at)}]})
            self.assertEqual(planned["changes"], [])
            daemon.kill()
            daemon.start()
            with daemon.client() as again:
                np.testing.assert_array_equal(self.score(again, ids, adapters=["my-adapter"]), before)

    def test_a_manifest_beside_it_is_sealed_checked_and_used(self) -> None:
        base = self.model()
        at = Adapter(base, ATTENTION, seed=1, dtype="BF16").write(self.dir / "adapter")
        hidden = json.loads((base / "config.json").read_text())["hidden_size"]
        bare = json.loads(run("chimera", "module", "inspect", str(at), "--json").stdout)
        self.assertEqual((bare["kind"], bare["rank"], bare["base_model"]), ("lora", 4, "random/model"))
        run("chimera", "module", "verify", str(at), "--backbone", str(base))
        (at / "module.yaml").write_text(
            f"chimera: module/1\nname: style\nversion: 1.2.0\nkind: lora\nlicense: MIT\n"
            f"backbone: {{fingerprint: \"\", hidden_size: {hidden}}}\n"
            "files:\n  - {path: adapter_config.json, sha256: \"\"}\n"
            "  - {path: adapter_model.safetensors, sha256: \"\"}\n")
        run("chimera", "module", "seal", str(at), "--backbone", str(base))
        with Daemon(base, serve={"max_context": CONTEXT}, modules=[{"path": str(at)}]) as daemon, \
                daemon.client() as client:
            run("chimerad", "--config", str(daemon.config), "--check")
            (module,) = client.modules()
            self.assertEqual((module["name"], module["version"]), ("style", "1.2.0"))
            with self.assertRaisesRegex(Exception, "kind is"):
                self.score(client, np.arange(5), adapters=["backbone"])
            self.score(client, np.arange(5), adapters=["style"])
        tensors = at / "adapter_model.safetensors"
        blob = bytearray(tensors.read_bytes())
        blob[-1] ^= 1
        tensors.write_bytes(blob)
        done = run("chimera", "module", "verify", str(at), "--backbone", str(base), check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("sha256", done.stderr)

    # --- what does not fit ---------------------------------------------------------------------------------

    def test_misfits_are_named_and_nothing_changes(self) -> None:
        base = self.model()
        good = Adapter(base, ATTENTION, seed=1)
        tensors = good.tensors()
        first = sorted(tensors)[0]
        nan = {**tensors, first: ("F32", np.full_like(tensors[first][1], np.nan))}
        wide = {**tensors, first: ("F32", np.zeros((4, 7), np.float32))}
        other = Adapter(base, ATTENTION, seed=1, modules_to_save=["lm_head"], use_qalora=True, bias="all",
                        peft_type="LOHA", surprising=1, init_lora_weights="pissa")
        no_target = Adapter(base, ATTENTION, seed=1)
        no_target.config["target_modules"] = ["q_proj"]
        part = "base_model.model.model.layers.0."
        extra = lambda name: {**tensors, part + name: ("F32", np.zeros((4, 4), np.float32))}
        cases = {
            "missing": (good, {n: t for n, t in tensors.items() if ".0.self_attn.k_proj." not in n},
                        ["model.layers.0.self_attn.k_proj"]),
            "half": (good, {n: t for n, t in tensors.items() if n != first}, [first.replace("lora_A", "lora_B"), "without lora_A"]),
            "extra": (good, extra("mlp.gate.lora_A.weight"), ["model.layers.0.mlp.gate"]),
            "unknown": (good, extra("self_attn.q_proj.weight"), [part + "self_attn.q_proj.weight"]),
            "embedding": (good, extra("embed.lora_embedding_A"), ["embeddings", part + "embed.lora_embedding_A"]),
            "magnitude": (good, extra("self_attn.q_proj.lora_magnitude_vector"), ["DoRA"]),
            "nan": (good, nan, [first, "nan"]),
            "shape": (good, wide, [first, "[4, 7]", "random/model"]),
            "untargeted": (no_target, None, ["k_proj", "v_proj", "o_proj", "target_modules"]),
            "options": (other, None, ["modules_to_save", "use_qalora", "bias", "LOHA", "surprising", "pissa"]),
        }
        with Daemon(base, serve={"max_context": CONTEXT}) as daemon, daemon.client() as client:
            history = lambda: client.epochs()["history"]
            before = history()
            for name, (adapter, content, words) in cases.items():
                with self.subTest(name):
                    at = adapter.write(self.dir / "misfits" / name, content)
                    with self.assertRaises(Exception) as raised:
                        client.load(at)
                    for word in words:
                        self.assertIn(word.lower(), str(raised.exception).lower())
                    self.assertTrue(client.plan({"modules": [{"path": str(at)}]}, )["refusals"] or name == "nan")
            pickled = good.write(self.dir / "pickled")
            (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
            with self.assertRaisesRegex(Exception, "adapter_model.bin"):
                client.load(pickled)
            for directory, seed in (("dense", 0),):
                random_checkpoint.build("llama", seed, self.dir / directory)
                with self.assertRaisesRegex(Exception, "random/model"):
                    client.load(Adapter(self.dir / directory, ATTENTION, seed=1).write(self.dir / "of-another"))
            self.assertEqual(history(), before)
            client.load(good.write(self.dir / "good"))
            with self.assertRaisesRegex(Exception, "nobody"):
                self.score(client, np.arange(5), adapters=["nobody"])


if __name__ == "__main__":
    unittest.main()
