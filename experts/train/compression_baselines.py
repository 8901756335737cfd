"""Reference points for the backbone: gzip -9, xz -9 and a 5-gram character (byte) model.

    python3 compression_baselines.py --corpora ../../../shared/corpora

All on the concatenated general valid set. The 5-gram model predicts each byte from the four before
it, with Witten-Bell interpolation down to the uniform distribution, and is trained on the first
documents of the general training set. Writes baselines.json beside this file.
"""
from __future__ import annotations

import argparse
import gzip
import json
import lzma
from pathlib import Path

import numpy as np

import corpus


def grams(text: np.ndarray, order: int) -> np.ndarray:
    """All `order`-grams of a byte array, packed into integers (last byte lowest)."""
    out = np.zeros(len(text) - order + 1, dtype=np.int64)
    for i in range(order):
        out = out << 8 | text[i:len(text) - order + 1 + i]
    return out


def lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """values[i] where keys[i] == wanted, 0 where absent; keys are sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def ngram_bits(train: np.ndarray, valid: np.ndarray, order: int) -> float:
    """Bits per byte of `valid`, skipping its first order - 1 bytes."""
    targets = len(valid) - order + 1
    prob = np.full(targets, 1 / 256)
    for n in range(1, order + 1):
        keys, counts = np.unique(grams(train, n), return_counts=True)
        context = keys >> 8
        starts = np.flatnonzero(np.r_[True, context[1:] != context[:-1]])
        totals = np.add.reduceat(counts, starts)
        kinds = np.diff(np.r_[starts, len(keys)])
        wanted = grams(valid, n)[-targets:]
        hits = lookup(keys, counts, wanted)
        total = lookup(context[starts], totals, wanted >> 8)
        kind = lookup(context[starts], kinds, wanted >> 8)
        seen = total > 0
        prob = np.where(seen, (hits + kind * prob) / np.maximum(total + kind, 1), prob)
    return float(-np.log2(prob).mean())


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=Path, default=corpus.DEFAULT_CORPORA)
    parser.add_argument("--megabytes", type=int, default=30, help="training text of the 5-gram model")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("baselines.json"))
    args = parser.parse_args()
    text = "\n\n".join(corpus.texts(args.corpora, "general", "valid")).encode()
    train = "\n\n".join(corpus.texts(args.corpora, "general", "train")).encode()
    train = train[:args.megabytes * 1_000_000]
    arrays = [np.frombuffer(t, np.uint8).astype(np.int64) for t in (train, text)]
    result = {
        "text": "general valid set", "bytes": len(text),
        "gzip_9_bits_per_byte": round(8 * len(gzip.compress(text, 9)) / len(text), 4),
        "xz_9_bits_per_byte": round(8 * len(lzma.compress(text, preset=9)) / len(text), 4),
        "char_5gram_bits_per_byte": round(ngram_bits(arrays[0], arrays[1], 5), 4),
        "char_5gram_train_bytes": len(train),
    }
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
