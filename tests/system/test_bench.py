#!/usr/bin/env python3
"""Benches that run without a daemon: that they measure what they say, not how fast anything is."""
from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from harness import BIN, SOURCE

SHAPE = """chimera: shape/1
config:
  model_type: olmoe
  hidden_size: 256
  intermediate_size: 256
  num_hidden_layers: 2
  num_attention_heads: 2
  num_experts: 4
  num_experts_per_tok: 2
  vocab_size: 128
  tie_word_embeddings: false
"""
WIDTH = 256 * 256
# What llama.cpp's programs print, as far as it is read.
PEER = '#!/bin/sh\necho \'[{"avg_ts": 1.5}]\'\n'


def bench(*args: str, status: int = 0) -> str:
    done = subprocess.run([str(BIN / "chimera-bench"), *args], capture_output=True, text=True)
    assert done.returncode == status, (args, done.returncode, done.stderr)
    return done.stdout if status == 0 else done.stderr


class Bench(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.work = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.work)
        (cls.work / "shape.yaml").write_text(SHAPE)
        cls.plain, cls.gguf = str(cls.work / "plain"), str(cls.work / "model.gguf")
        bench("synth", str(cls.work / "shape.yaml"), "--out", cls.plain)
        bench("synth", str(cls.work / "shape.yaml"), "--gguf", "--type", "q8_0", "--out", cls.gguf)

    def test_assemblies_are_measured_beside_plain_copies_and_nothing_is_left(self) -> None:
        work = self.work / "assembly"
        work.mkdir()
        common = ("assembly", "--shape", str(self.work / "shape.yaml"), "--work", str(work))
        told = bench(*common, "--layers", "1", "2", "3", "--parents", "2", "--rounds", "1", "--threads", "1",
                     "--memory", "64").splitlines()
        rows = [line.split() for line in told[2:5]]
        self.assertEqual([row[:2] for row in rows], [["1", "2"], ["2", "2"], ["3", "2"]])
        self.assertTrue(all(float(row[4]) > 0 and float(row[5]) > 0 for row in rows), told)
        self.assertRegex(told[5], r"^2 parents: seconds over bytes, R2 [01]\.\d+$")
        self.assertEqual(list(work.iterdir()), [])
        self.assertIn("--parents from 2", bench(*common, "--parents", "1", status=2))

    def test_a_step_reads_the_active_weights(self) -> None:
        common = ("--rounds", "2", "--tokens", "2", "--json")
        report = json.loads(bench("decode", "--backbone", self.plain, "--context", "0", *common))
        figures = {figure["name"]: figure for figure in report["figures"]}
        self.assertEqual(len(figures["tokens"]["samples"]), 2)
        self.assertGreater(figures["tokens"]["median"], 0)
        # Four square matrices of attention and two experts of three in each of two layers, in BF16;
        # the head likewise; gates, the two norms of layers, those of queries and keys and the last in F32.
        expected = 2 * (2 * (4 + 6) * WIDTH + 128 * 256) + 4 * 256 * (2 * (4 + 4) + 1)
        self.assertAlmostEqual(figures["weights of a step"]["median"], expected / 1e6, places=6)
        self.assertGreater(figures["weights read"]["limit"]["median"], 0)
        self.assertEqual(report["settings"]["experts"], "bf16")

    def test_many_sequences_read_no_more_than_all_experts(self) -> None:
        report = json.loads(bench("batch", "--backbone", self.gguf, "--precision", "q8", "--streams", "8",
                                  "--rounds", "2", "--tokens", "2", "--context", "3", "--json"))
        figures = {figure["name"]: figure for figure in report["figures"]}
        q8 = (32 + 2) / 32  # bytes of a weight
        most = q8 * (2 * (4 + 12) * WIDTH + 128 * 256) + 4 * 256 * (2 * (4 + 4) + 1)
        self.assertLessEqual(figures["weights of a step"]["max"], most / 1e6 + 1e-6)
        self.assertEqual(report["settings"]["experts"], "q8")

    def test_prompts_and_the_machine(self) -> None:
        report = json.loads(bench("prefill", "--backbone", self.gguf, "--precision", "experts=q4,head=q8",
                                  "--rounds", "1", "--tokens", "40", "--chunk", "16", "--json"))
        self.assertEqual(report["settings"]["precision"], "experts q4, attention f32, head q8")
        self.assertGreater(report["figures"][0]["median"], 0)
        limits = json.loads(bench("limits", "--rounds", "1", "--threads", "1", "--json"))
        self.assertTrue(all(figure["median"] >= 0 for figure in limits["figures"]))
        self.assertIn("memory read, streams 4", [figure["name"] for figure in limits["figures"]])

    def test_a_hot_load_stands_beside_what_its_bytes_cost(self) -> None:
        experts = SOURCE / "experts"
        told = bench("load", "--backbone", str(experts / "backbone"), "--hot", str(experts / "legal"))
        size = (experts / "legal" / "weights.safetensors").stat().st_size / 1e6
        self.assertRegex(told, rf"(?m)^module +{size:.1f} MB +in 1 files$")
        rows = re.findall(r"(?m)^(\S.*?) +([0-9.]+) ms .* ([0-9.]+) x read, ([0-9.]+) x sha-256$", told)
        self.assertEqual([row[0] for row in rows], ["read", "sha-256", "fresh memory", "to first token",
                                                    "daemon's CPU", "when known"])
        self.assertTrue(all(float(row[1]) > 0 for row in rows if row[0] != "daemon's CPU"), told)
        self.assertIn("/nowhere", bench("load", "--backbone", str(experts / "backbone"), "--hot", "/nowhere",
                                        status=1))

    def test_mistakes_are_told(self) -> None:
        self.assertIn("--precision: q5 (expected", bench("decode", "--backbone", self.plain, "--precision", "q5",
                                                         status=2))
        self.assertIn("--rounds: 0 (expected 1 or more)", bench("limits", "--rounds", "0", status=2))
        self.assertIn("exists", bench("synth", str(self.work / "shape.yaml"), "--out", self.plain, status=1))
        self.assertIn("nowhere", bench("decode", "--backbone", "nowhere", status=1))

    def test_comparison_takes_turns(self) -> None:
        peer = self.work / "llama-bench"
        peer.write_text(PEER)
        peer.chmod(0o755)
        out = self.work / "compare.json"
        done = subprocess.run(
            [sys.executable, str(SOURCE / "bench" / "compare.py"), f"{self.gguf}:q8", "--llama", str(self.work),
             "--bench", str(BIN / "chimera-bench"), "--rounds", "2", "--json", str(out)],
            capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        results = json.loads(out.read_text())
        self.assertEqual([r["figure"] for r in results], ["decode", "prefill"])  # no llama-batched-bench here
        for result in results:
            self.assertEqual(len(result["samples"]), 2)
            for sample in result["samples"]:
                self.assertEqual(sample["peer"], 1.5)
                self.assertAlmostEqual(sample["ratio"], sample["chimera"] / 1.5)


if __name__ == "__main__":
    unittest.main()
