#!/usr/bin/env python3
"""Quantised Hugging Face checkpoints: every scheme number by number, whole models bit by bit, and
what is refused.

Files and expected numbers come from quantised_checkpoints.py, which is written from the formats'
descriptions.
"""
from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import numpy as np

import gguf_files
import quantised_checkpoints as quantised
from harness import BIN, Daemon, run, split
from random_checkpoint import write_safetensors

TOKENS = list(range(3, 40))


def logits(path: pathlib.Path, **options) -> np.ndarray:
    with Daemon(path, **options) as daemon, daemon.client() as client:
        return client.score(tokens=TOKENS, logits=True).logits


def families_of(scheme: str) -> tuple[str, ...]:
    """Every scheme in two families, every family in many schemes."""
    names = list(quantised.SCHEMES)
    at = names.index(scheme)
    known = [f for f in quantised.FAMILIES if not (scheme.startswith("mlx") and f == "deepseek_v3")]
    return known[at % len(known)], known[(at + 2) % len(known)]


class Work(unittest.TestCase):
    def setUp(self) -> None:
        self.work = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.work)


class Numbers(Work):
    def test_every_scheme_number_by_number(self) -> None:
        for scheme in quantised.SCHEMES:
            for family in families_of(scheme):
                with self.subTest(scheme, family=family):
                    path = self.work / f"{scheme}-{family}"
                    expected = quantised.build(path, family, scheme)
                    out = self.work / f"{scheme}-{family}-f32"
                    run("chimera", "module", "convert", str(path), "--out", str(out), "--type", "f32")
                    config, found = gguf_files.read_checkpoint(out)
                    self.assertNotIn("quantization_config", config)
                    self.assertEqual(set(found), set(expected))
                    for name, values in expected.items():
                        np.testing.assert_array_equal(found[name].view(np.uint32),
                                                      values.view(np.uint32), name)


class Models(Work):
    def test_logits_are_those_of_the_dequantised_checkpoint(self) -> None:
        # One of every kind of tensor that the schemes become.
        for scheme, family in (("fp8-blocks", "qwen3_moe"), ("ct-fp8-channel", "mixtral"),
                               ("ct-w4", "deepseek_v3"), ("ct-int8", "llama"),
                               ("gptq-4-order", "olmoe"), ("awq", "qwen3_moe"),
                               ("gptq-8-v2-zeros", "mixtral"), ("ct-nvfp4", "qwen3_moe"),
                               ("mlx-3", "qwen3_moe")):
            with self.subTest(scheme, family=family):
                path = self.work / scheme
                numbers = quantised.build(path, family, scheme)
                other = quantised.plain(self.work / f"{scheme}-plain", family, numbers)
                np.testing.assert_array_equal(logits(path, precision="f32").view(np.uint32),
                                              logits(other, precision="f32").view(np.uint32))

    def test_integers_keep_their_values_in_the_packed_formats(self) -> None:
        # What is left of a distance to exact arithmetic is what rounding activations costs. (A family
        # without routers: no choice of an expert flips.)
        for scheme, precision in (("ct-w4", "q4"), ("gptq-4", "q4"), ("awq", "q8"), ("ct-w8", "q8")):
            with self.subTest(scheme):
                path = self.work / scheme
                quantised.build(path, "llama", scheme)
                exact = logits(path, precision="f32")
                packed = logits(path, precision={"experts": precision, "attention": "f32",
                                                 "head": "f32"})
                self.assertLess(np.abs(packed - exact).max(), 0.05 * np.abs(exact).max())


class Tools(Work):
    def test_inspect_check_split_graft_and_verify_agree(self) -> None:
        path = self.work / "model"
        quantised.build(path, "qwen3_moe", "gptq-4")
        report = json.loads(run("chimera", "--json", "module", "inspect", str(path)).stdout)
        self.assertTrue(report["runs"], report)
        self.assertEqual(report["quantization"], "GPTQ, 4 bits, groups of 32")
        self.assertIn("INT4", report["dtype"])
        whole = logits(path)
        parts = split(path, self.work / "cut", a="2", b="3")
        modules = [{"path": str(parts / "modules" / m)} for m in "ab"]
        np.testing.assert_array_equal(logits(parts / "backbone", modules=modules, top_k=2), whole)
        for module in "ab":
            run("chimera", "module", "verify", str(parts / "modules" / module), "--backbone",
                str(parts / "backbone"))
        run("chimera", "module", "graft", str(parts / "backbone"),
            *(str(parts / "modules" / m) for m in "ab"), "--out", str(self.work / "grafted"))
        np.testing.assert_array_equal(logits(self.work / "grafted"), whole)

    def test_modules_of_fp8_per_output_give_the_whole_again(self) -> None:
        path = self.work / "model"
        quantised.build(path, "mixtral", "ct-fp8-channel")
        whole = logits(path)
        parts = split(path, self.work / "cut", a="3")
        np.testing.assert_array_equal(
            logits(parts / "backbone", modules=[{"path": str(parts / "modules" / "a")}], top_k=2),
            whole)


class Refused(Work):
    def refusal(self, path: pathlib.Path) -> str:
        """What `inspect` and `chimerad --check` say, which is the same."""
        done = subprocess.run([BIN / "chimera", "module", "inspect", path], text=True,
                              capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        deployment = path.parent / "check.yaml"
        deployment.write_text(f"chimera: deployment/1\nbackbone: {{path: {path}}}\n")
        checked = subprocess.run([BIN / "chimerad", "--config", deployment, "--check"], text=True,
                                 capture_output=True, timeout=60)
        self.assertNotEqual(checked.returncode, 0)
        reason = done.stderr.removeprefix("chimera: ").strip()
        self.assertIn(reason.split(". ")[0].splitlines()[0][:60],
                      (checked.stderr + checked.stdout).replace("backbone.path: ", ""))
        return done.stderr

    def changed(self, scheme: str, change) -> pathlib.Path:
        path = self.work / "model"
        shutil.rmtree(path, ignore_errors=True)
        quantised.build(path, "qwen3_moe", scheme)
        config = json.loads((path / "config.json").read_text())
        change(config)
        (path / "config.json").write_text(json.dumps(config))
        return path

    def test_options_by_name(self) -> None:
        def weights(config):
            return config["quantization_config"]["config_groups"]["group_0"]["weights"]

        for scheme, words, change in (
                ("gptq-4", ("quant_method", "bitsandbytes", "supported"),
                 lambda c: c["quantization_config"].update(quant_method="bitsandbytes")),
                ("gptq-4", ("quantization_config.bits", "3"),
                 lambda c: c["quantization_config"].update(bits=3)),
                ("gptq-4", ("checkpoint_format", "marlin"),
                 lambda c: c["quantization_config"].update(checkpoint_format="marlin")),
                ("gptq-4", ("rotation", "hadamard"),
                 lambda c: c["quantization_config"].update(rotation="hadamard")),
                ("awq", ("version", "gemv"), lambda c: c["quantization_config"].update(version="gemv")),
                ("ct-w4", ("format", "marlin-24"),
                 lambda c: c["quantization_config"].update(format="marlin-24")),
                ("ct-w4", ("weights.num_bits", "3"), lambda c: weights(c).update(num_bits=3)),
                ("ct-w4", ("transform_config",),
                 lambda c: c["quantization_config"].update(transform_config={"r": 1})),
                ("fp8-blocks", ("fmt", "e5m2"), lambda c: c["quantization_config"].update(fmt="e5m2")),
                ("modelopt-fp8", ("quant_algo", "W4A8"),
                 lambda c: c["quantization_config"].update(quant_algo="W4A8")),
                ("mlx-4", ("mode", "mxfp4"), lambda c: c["quantization"].update(mode="mxfp4")),
                ("mlx-4", ("quantization.bits", "7"), lambda c: c["quantization"].update(bits=7))):
            with self.subTest(words):
                message = self.refusal(self.changed(scheme, change))
                for word in words:
                    self.assertIn(word, message)

    def test_tensors_that_do_not_fit(self) -> None:
        q_proj = "model.layers.0.self_attn.q_proj"
        for scheme, tail, change, words in (
                ("gptq-4", "scales", None, ("lacks tensor", "q_proj.scales")),
                ("gptq-4", "qweight", None, ("q_proj.", "stands without", "qweight")),
                ("gptq-4", "qzeros", lambda t: ("I32", t[1][:, :-1]), ("qzeros", "shape")),
                ("gptq-4", "qzeros", lambda t: ("I32", t[1] + 1), ("zero point 9", "expected 8")),
                ("gptq-4", "scales", lambda t: ("F64", t[1].astype(np.float64)), ("F64", "F16")),
                ("gptq-4", "g_idx", lambda t: ("I32", t[1] + 99), ("g_idx", "group")),
                ("awq", "qweight", lambda t: ("I32", t[1][:-32]), ("scales", "shape")),
                ("ct-w4", "weight_shape", lambda t: ("I64", t[1] * 2), ("weight_packed", "shape")),
                ("ct-w4", "weight_scale", lambda t: ("BF16", t[1][:, :1]), ("weight_scale", "group")),
                ("ct-nvfp4", "weight_scale", lambda t: ("U8", t[1]), ("weight_scale", "U8")),
                ("mlx-4", "biases", None, ("lacks tensor", "biases")),
                ("fp8-small-blocks", "weight_scale_inv", lambda t: ("BF16", t[1][:1]),
                 ("weight_scale_inv", "shape"))):
            with self.subTest((scheme, tail)):
                path = self.work / "model"
                shutil.rmtree(path, ignore_errors=True)
                quantised.build(path, "qwen3_moe", scheme)
                tensors = read_raw(path)
                name = f"{q_proj}.{tail}"
                found = tensors.pop(name)
                if change is not None:
                    tensors[name] = change(found)
                write_safetensors(path / "model.safetensors", tensors)
                message = self.refusal(path)
                for word in words:
                    self.assertIn(word, message)


NUMPY = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "I32": np.int32, "U32": np.uint32,
         "I64": np.int64, "I8": np.int8, "U8": np.uint8, "F8_E4M3": np.uint8}


def read_raw(path: pathlib.Path) -> quantised.Tensors:
    raw = (path / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, entry in json.loads(raw[8:8 + size]).items():
        begin, end = (8 + size + o for o in entry["data_offsets"])
        tensors[name] = (entry["dtype"],
                         np.frombuffer(raw[begin:end], NUMPY[entry["dtype"]]).reshape(entry["shape"]))
    return tensors


if __name__ == "__main__":
    unittest.main()
