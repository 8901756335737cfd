"""chimera module merge: an adapter folded into a checkpoint or a module, against NumPy and float64."""
from __future__ import annotations

import json
import pathlib
import shutil
import tempfile
import unittest

from harness import Daemon, flat, run

try:
    import numpy as np
    from assembly_parents import read_tensors, round_to, to_f64
    from lora_adapters import ATTENTION, FEED_FORWARD, LATENT, Adapter, Stacks
    from test_lora import CONTEXT, drawn
    MISSING = None
except ImportError as error:
    MISSING = str(error)

EXPERTS = ["w1", "w2", "w3"]


@unittest.skipIf(MISSING, MISSING)
class Merge(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.dir = pathlib.Path(self.scratch.name)

    def base(self, family: str, **how) -> pathlib.Path:
        at = pathlib.Path(tempfile.mkdtemp(dir=self.dir)) / family
        drawn(family, at, **how)
        return at

    def merge(self, adapter: pathlib.Path, base: pathlib.Path, out: pathlib.Path, *more: str, check=True):
        return run("chimera", "--json", "module", "merge", str(adapter), "--backbone", str(base),
                   "--out", str(out), *more, check=check)

    def expect(self, base: pathlib.Path, out: pathlib.Path, adapter) -> None:
        """Every tensor of `out`: as it was, or the sum rounded once."""
        deltas, before, after = adapter.deltas(), read_tensors(base), read_tensors(out)
        self.assertEqual(set(before), set(after))
        self.assertEqual((out / "config.json").read_bytes(), (base / "config.json").read_bytes())
        for name, (dtype, shape, blob) in before.items():
            delta = deltas.pop(name.removesuffix(".weight"), None)
            self.assertEqual(after[name][:2], (dtype, shape))
            if delta is None:
                self.assertEqual(after[name][2], blob, name)
                continue
            stored = to_f64(dtype, shape, blob)
            wanted = round_to(adapter.changed(name.removesuffix(".weight"), stored, stored), dtype)
            if dtype == "F32":  # the sums of NumPy have an order of their own
                found, wanted = (np.frombuffer(b, np.float32) for b in (after[name][2], wanted))
                np.testing.assert_array_max_ulp(found, wanted, 1)
            else:
                self.assertEqual(after[name][2], wanted, name)
            self.assertNotEqual(after[name][2], blob, name)
        self.assertEqual(deltas, {})

    def test_checkpoints_agree_with_numpy(self) -> None:
        routed = lambda c: not c["mlp_only_layers"]
        cases = [  # in BF16 sums are often half between two numbers: the scale is one that float64 holds
            ("llama", {}, Adapter, {"targets": ATTENTION + FEED_FORWARD, "rank": 5, "alpha": 10, "dtype": "BF16"}),
            ("deepseek_v3", {"good": lambda c: c["q_lora_rank"] is not None}, Adapter,
             {"targets": LATENT, "rslora": True}),
            ("qwen3_moe", {"good": routed}, Stacks, {"layout": "peft-0.17", "dtype": "F16"}),
            ("qwen3_moe", {"good": routed, "fused": True}, Stacks, {"layout": "shared-outer"}),
            ("gpt_oss", {"fused": True}, Stacks, {"layout": "peft", "transposed": True}),
        ]
        cases += [("mixtral", {"dtype": dtype}, Adapter,
                   {"targets": EXPERTS + ["q_proj"], "rank_pattern": {"q_proj": 7}})
                  for dtype in ("F32", "BF16", "F16")]
        cases += [("llama", {"dtype": "F32"}, Adapter, {"targets": ATTENTION + FEED_FORWARD, "use_dora": True}),
                  ("mixtral", {"dtype": "BF16"}, Adapter, {"targets": EXPERTS, "use_dora": True, "dtype": "BF16"})]
        for i, (family, how, kind, options) in enumerate(cases):
            with self.subTest(family=family, **{k: str(v) for k, v in options.items()}):
                base = self.base(family, **how)
                (base / "generation_config.json").write_text("{}")
                adapter = kind(base, seed=i, **options)
                out = self.dir / f"merged-{i}"
                report = json.loads(self.merge(adapter.write(self.dir / f"adapter-{i}"), base, out,
                                               "--shard-size", "40K", "--threads", "2").stdout)
                self.assertEqual(report["checkpoint"], str(out))
                self.assertGreater(len(list(out.glob("*.safetensors"))), 1)
                self.assertEqual((out / "generation_config.json").read_text(), "{}")
                self.expect(base, out, adapter)

    def test_a_module_is_bitwise_the_merged_checkpoint(self) -> None:
        routed = lambda c: not c["mlp_only_layers"]
        for i, (family, how, kind, options) in enumerate((
                ("mixtral", {}, Adapter, {"targets": EXPERTS, "layers": [1]}),
                ("qwen3_moe", {"good": routed, "fused": True}, Stacks, {"layout": "peft"}))):
            with self.subTest(family):
                base = self.base(family, **how)
                adapter = kind(base, seed=i, **options).write(self.dir / f"experts-{i}")
                module, whole = self.dir / f"folded-{i}", self.dir / f"whole-{i}"
                report = json.loads(self.merge(adapter, base, module, "--module", "folded").stdout)
                self.assertEqual(report["module"], str(module))
                self.merge(adapter, base, whole)
                run("chimera", "module", "verify", str(module), "--backbone", str(base))
                text = (module / "module.yaml").read_text()
                self.assertIn(report["digest"], text)
                self.assertIn(f"experts-{i}", text)
                self.assertIn('license: "unknown"', text)
                ids = np.random.default_rng(i).integers(0, 96, 20).tolist()
                score = lambda client: np.array(flat(client.score(tokens=ids, logits=True).logits))
                with Daemon(whole, serve={"max_context": CONTEXT}) as daemon, daemon.client() as client:
                    wanted = score(client)
                with Daemon(base, serve={"max_context": CONTEXT}) as daemon, daemon.client() as client:
                    plain = score(client)
                    client.load(module)
                    np.testing.assert_array_equal(score(client), wanted)
                    self.assertGreater(np.abs(wanted - plain).max(), 0.01)

    def test_what_cannot_be_folded_is_named_and_leaves_nothing(self) -> None:
        base = self.base("mixtral")
        good = Adapter(base, EXPERTS + ["q_proj"], seed=1)
        adapter = good.write(self.dir / "adapter")
        out = self.dir / "deep" / "out"

        def refused(*words: str, at=adapter, onto=base, more=()) -> None:
            done = self.merge(at, onto, out, *more, check=False)
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            for word in words:
                self.assertIn(word, done.stderr)
            self.assertFalse(out.parent.exists())

        refused("model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight",
                more=("--module", "experts"))
        refused("BASE", more=("--module", "BASE"))
        tensors = good.tensors()
        first = sorted(tensors)[0]
        refused(first.replace("lora_A", "lora_B"), at=good.write(self.dir / "lacks", {n: t for n, t in tensors.items() if n != first}))
        huge = {n: (d, np.full_like(v, 3e38) if "q_proj" in n else v) for n, (d, v) in tensors.items()}
        refused("beyond the range", "q_proj", at=good.write(self.dir / "huge", huge))
        broken = self.base("mixtral")
        weights = broken / "model.safetensors"
        blob = bytearray(weights.read_bytes())
        size = int.from_bytes(blob[:8], "little")
        name = "model.layers.1.block_sparse_moe.experts.1.w2.weight"
        entry = json.loads(blob[8:8 + size])[name]
        self.assertIn(entry["dtype"], ("F32", "BF16", "F16"))
        at = 8 + size + entry["data_offsets"][0]
        width = 4 if entry["dtype"] == "F32" else 2
        blob[at:at + width] = b"\xff" * width  # a NaN of each
        weights.write_bytes(blob)
        refused(name, "not finite", onto=broken)
        for more in (("--module", ""), ("--module", "experts", "--shard-size", "1M"), ("--license", "MIT")):
            done = self.merge(adapter, base, out, *more, check=False)
            self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
            self.assertFalse(out.parent.exists())
        other = self.base("llama")
        refused("random/model", onto=other)
        out.mkdir(parents=True)
        done = self.merge(adapter, base, out, check=False)
        self.assertIn("already exists", done.stderr)
        shutil.rmtree(out.parent)


if __name__ == "__main__":
    unittest.main()
