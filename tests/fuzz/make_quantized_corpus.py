#!/usr/bin/env python3
"""Writes tests/fuzz/corpus/quantized: one small matrix in every scheme, behind its configuration.

Run it after a change of this file or of quantised_checkpoints.py; the corpus is committed.
"""
from __future__ import annotations

import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
import numpy as np  # noqa: E402

import quantised_checkpoints as quantised  # noqa: E402
from random_checkpoint import write_safetensors  # noqa: E402

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus" / "quantized"


def main() -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        image = pathlib.Path(work) / "image"
        for number, (name, (said, make)) in enumerate(quantised.SCHEMES.items()):
            parts, _ = make(quantised.Matrix(np.random.default_rng(number), 8, 32))
            write_safetensors(image, {f"a.{tail}": part for tail, part in parts.items()})
            (CORPUS / name).write_bytes(json.dumps(said).encode() + b"\0" + image.read_bytes())


if __name__ == "__main__":
    main()
