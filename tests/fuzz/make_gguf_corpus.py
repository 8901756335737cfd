#!/usr/bin/env python3
"""Writes tests/fuzz/corpus/gguf: small GGUF files, whole and broken, one thing each.

Run it after a change of this file; the corpus is committed.
"""
from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
import gguf_files as gguf  # noqa: E402

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus" / "gguf"


def main() -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    for name, image in gguf.samples().items():
        (CORPUS / name).write_bytes(image)


if __name__ == "__main__":
    main()
