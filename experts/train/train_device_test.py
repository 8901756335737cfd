"""The recipe for a GPU in a tiny size on the CPU: it goes on where a call ended, ends by itself, and what
it leaves is a model. Exits with 77 (skipped) where there is no PyTorch.

Texts are the excerpts, a token for each byte, so that nothing but PyTorch and NumPy is needed.
"""
from __future__ import annotations

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

os.environ.setdefault("OMP_NUM_THREADS", "1")
try:
    import numpy as np
    import torch
except ImportError as missing:
    print(f"skipped: {missing} (expected python3-torch, which ./check does not install: 160 packages)")
    sys.exit(77)
sys.modules["regex"] = None  # what a machine with a GPU need not have

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import corpus  # noqa: E402
import device_model  # noqa: E402
import gate_texts  # noqa: E402
import pieces  # noqa: E402
from compose import finished_module, public_model, with_modules  # noqa: E402
from model import Config, FlexOlmo  # noqa: E402
from train_expert import extract  # noqa: E402
from train_public import init  # noqa: E402

TINY = ("--hidden", "64", "--layers", "2", "--ff", "64", "--heads", "2", "--batch", "1024", "--length", "64",
        "--windows", "2", "--statistics", "2", "--gate-steps", "5", "--device", "cpu", "--no-bf16")


def write_pieces(folder: pathlib.Path) -> None:
    """The excerpts: four fifths to train on, in two pieces, the rest as kinds trained on and left out."""
    arrays = {d: np.frombuffer((HERE / "excerpts" / f"{d}.txt").read_bytes(), np.uint8).astype(np.uint16) + 2
              for d in corpus.DOMAINS}
    folder.mkdir()
    valid, windows = {}, []
    for number, (domain, ids) in enumerate(arrays.items()):
        cut = [0, 2 * len(ids) // 5, 4 * len(ids) // 5, 9 * len(ids) // 10, len(ids)]
        own, left = ids[cut[2]:cut[3]], ids[cut[3]:]
        valid |= {f"{domain}.own": own, f"{domain}.own.bytes": np.array([len(own)]),
                  f"{domain}.left": left, f"{domain}.left.bytes": np.array([len(left)])}
        for i, kind in enumerate(gate_texts.KINDS * 4):
            part = ids[i * 200:i * 200 + 60].tolist()
            windows.append(gate_texts.Window(part, [number] * len(part), kind))
    for n in range(2):
        pieces.save(folder / f"{n:03d}.npz", {d: ids[n * len(ids) * 2 // 5:(n + 1) * len(ids) * 2 // 5]
                                              for d, ids in arrays.items()})
    pieces.save(folder / "valid.npz", valid)
    gate_texts.save_windows(folder / "gates.npz", windows)


class Recipe(unittest.TestCase):
    def setUp(self) -> None:
        work = tempfile.TemporaryDirectory(prefix="chimera-recipe-")
        self.addCleanup(work.cleanup)
        self.root = pathlib.Path(work.name)

    def call(self, within: float) -> str:
        command = [sys.executable, str(HERE / "train_device.py"), "--pieces", self.root / "pieces", "--work",
                   self.root / "work", "--out", self.root / "out", "--minutes", "0.5", "--within",
                   str(within), *TINY]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_goes_on_where_a_call_ended_and_leaves_a_model(self) -> None:
        write_pieces(self.root / "pieces")
        self.assertIn("time is over; the same command goes on", self.call(within=4))
        parts = sorted((self.root / "out").glob("result.*"))
        self.assertTrue(parts, "a call that ended in the middle leaves what there is")
        told = self.call(within=600)
        self.assertRegex(told, r"resumed: nothing done, public at step [1-9]")
        self.assertTrue(told.endswith("all done\n"), told)
        self.assertIn("all done", self.call(within=600), "nothing is left to do")
        for part in (self.root / "out").iterdir():
            self.assertLessEqual(part.stat().st_size, pieces.PART_BYTES)

        joined = self.root / "joined"
        names = pieces.join(self.root / "out", joined)
        self.assertLessEqual({"curve.json", "public.final.pt", "legal.final.pt", "legal.tuned.pt"}, set(names))
        curve = json.loads((joined / "curve.json").read_text())
        public = [point for point in curve if point["stage"] == "public"]
        steps = [point["step"] for point in public]
        self.assertEqual(steps, sorted(steps))
        if steps[-1] >= 60:  # stages end by the clock; warm-up takes 40 steps
            self.assertLess(public[-1]["bits"]["general.own"], 0.8 * math.log2(Config.vocab_size),
                            "it knows more than nothing")
        self.assertEqual(set(curve[-1]["bits"]), {"backbone", *corpus.EXPERTS, "all three"})
        self.assertIn("legal.left", curve[-1]["bits"]["legal"])
        # As export.py takes them.
        modules = [finished_module(joined, d) for d in corpus.EXPERTS]
        whole = with_modules(public_model(joined), modules)
        self.assertTrue(torch.isfinite(whole(torch.tensor([[5, 6, 7]]))).all())

    def test_parts_of_two_runs_are_told_apart(self) -> None:
        out = self.root / "out"
        pieces.split({"a": bytes(pieces.PART_BYTES + 5)}, out)
        self.assertEqual(len(list(out.glob("result.00*"))), 2)
        self.assertEqual(pieces.join(out, self.root / "work"), ["a"])
        self.assertEqual((self.root / "work" / "a").stat().st_size, pieces.PART_BYTES + 5)
        (out / "result.001").write_bytes(b"x" * (out / "result.001").stat().st_size)
        with self.assertRaisesRegex(ValueError, "A part is of another run"):
            pieces.join(out, self.root / "work")

    def test_forward_pass_is_that_of_the_reference(self) -> None:
        public = FlexOlmo(Config(vocab_size=300, hidden_size=64, intermediate_size=64, num_hidden_layers=3,
                                 num_attention_heads=2, num_key_value_heads=2))
        init(public, 1)
        with torch.no_grad():
            public.lm_head.weight.mul_(20)
        modules = []
        for seed in (2, 3):
            module = extract(public, 0)
            draw = torch.Generator().manual_seed(seed)
            modules.append({n: t + 0.1 * torch.randn(t.shape, generator=draw) for n, t in module.items()})
        ids = torch.randint(2, 300, (2, 33), generator=torch.Generator().manual_seed(4))
        for model in (public, with_modules(public, modules)):
            count = ids[:, 1:].numel()
            expected = float(model.loss(ids, 1.0 / count))
            found = float(device_model.loss(model, ids, bf16=False))
            self.assertAlmostEqual(found, expected, delta=1e-4 * expected)
            rounded = float(device_model.loss(model, ids, bf16=True))
            self.assertAlmostEqual(rounded, expected, delta=0.03 * expected)


if __name__ == "__main__":
    unittest.main()
