"""Compares model.py with stored Hugging Face logits: check_golden.py <golden model directory>."""
from __future__ import annotations

import sys
from pathlib import Path

import torch

import safetensors_io
from model import FlexOlmo


def main() -> int:
    """Print the largest logit difference over all prompts; fail above 1e-3."""
    path = Path(sys.argv[1])
    model = FlexOlmo.from_dir(path)
    golden = safetensors_io.read(path / "golden.safetensors")
    worst, count = 0.0, 0
    with torch.no_grad():
        while f"prompt.{count}.input_ids" in golden:
            ids = golden[f"prompt.{count}.input_ids"].reshape(1, -1).long()
            want = golden[f"prompt.{count}.logits"]
            got = model(ids).reshape(want.shape)
            worst = max(worst, float((got - want).abs().max()))
            count += 1
    print(f"{count} prompts, largest difference {worst:.2e}")
    return 0 if count and worst < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
