"""Encoded corpora: `prepare` writes uint16 token files, `Stream` draws training windows.

    python3 data.py --corpora ../../../shared/corpora --work ~/.cache/chimera-train

For each domain and part the work directory gets `<domain>.<part>.bin` (documents in a fixed random
order, each preceded by the end-of-text token); `sizes.json` holds documents, bytes and tokens of each.
With `--by-source` there is a file `<domain>.<source>.train.bin` of every source beside them, so that a
stage can draw from sources with weights of its own (`train_expert.py --sources`).
"""
from __future__ import annotations

import argparse
import json
import random
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import corpus

if TYPE_CHECKING:
    from tokenizer import Tokenizer

SEED = 2


def prepare(root: Path, work: Path, tok: Tokenizer, domain: str, part: str) -> dict[str, int]:
    """Encode one part of one domain into the work directory; returns its sizes."""
    docs = corpus.texts(root, domain, part)
    if part == "train":
        random.Random(SEED).shuffle(docs)
    ids = array("H")
    for doc in docs:
        ids.append(tok.eos)
        ids.extend(tok.encode(doc))
    tmp = work / f"{domain}.{part}.tmp"
    tmp.write_bytes(ids.tobytes())
    tmp.rename(work / f"{domain}.{part}.bin")
    return {"documents": len(docs), "bytes": sum(len(d.encode()) for d in docs),
            "tokens": len(ids) - len(docs)}


def prepare_sources(root: Path, work: Path, tok: Tokenizer, domain: str) -> dict[str, int]:
    """Encode the training text of a domain into one file per source; returns the tokens of each."""
    ids: dict[str, array] = {}
    for record in corpus.records(root, domain, "train"):
        of = ids.setdefault(record["source"], array("H"))
        of.append(tok.eos)
        of.extend(tok.encode(record["text"]))
    for source, of in ids.items():
        (work / f"{domain}.{source}.train.bin").write_bytes(of.tobytes())
    return {source: len(of) for source, of in sorted(ids.items())}


def load(work: Path, domain: str, part: str) -> np.ndarray:
    """The token ids of one part (memory-mapped)."""
    return np.memmap(work / f"{domain}.{part}.bin", dtype=np.uint16, mode="r")


def load_valid(work: Path, domain: str, eos: int = 0) -> list[np.ndarray]:
    """Valid documents, each beginning with the end-of-text token."""
    ids = np.asarray(load(work, domain, "valid"))
    starts = np.flatnonzero(ids == eos)
    return np.split(ids, starts[1:])


class Stream:
    """Random windows over a weighted mix of training files; a function of (seed, step) only."""

    def __init__(self, work: Path, mix: dict[str, float], seed: int) -> None:
        self.files = [load(work, d, "train") for d in mix]
        weights = np.array(list(mix.values()), dtype=np.float64)
        self.cum = np.cumsum(weights / weights.sum())
        self.seed = seed

    def batch(self, step: int, micro: int, rows: int, length: int) -> np.ndarray:
        """int64 [rows, length + 1] windows of micro-batch `micro` of `step`."""
        rng = np.random.default_rng((self.seed, step, micro))
        out = np.empty((rows, length + 1), dtype=np.int64)
        for row in range(rows):
            file = self.files[min(int(np.searchsorted(self.cum, rng.random())), len(self.files) - 1)]
            at = int(rng.integers(0, len(file) - length - 1))
            out[row] = file[at:at + length + 1]
        return out


def main() -> None:
    """Encode every training and valid part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=corpus.DEFAULT_CORPORA)
    parser.add_argument("--work", type=Path, default=corpus.DEFAULT_WORK)
    parser.add_argument("--tokenizer", type=Path,
                        default=corpus.REPO / "experts" / "backbone" / "tokenizer.json")
    parser.add_argument("--by-source", nargs="*", default=[], choices=corpus.DOMAINS, metavar="DOMAIN",
                        help="of these domains a file per source, too")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    from tokenizer import Tokenizer  # needs `regex`, which who only draws windows does without
    tok = Tokenizer(args.tokenizer)
    sizes: dict[str, dict[str, dict[str, int]]] = {}
    for part in ("valid", "train"):
        for domain in corpus.DOMAINS:
            sizes.setdefault(domain, {})[part] = prepare(args.corpora, args.work, tok, domain, part)
            print(domain, part, sizes[domain][part], flush=True)
            (args.work / "sizes.json").write_text(json.dumps(sizes, indent=1))
    for domain in args.by_source:
        print(domain, prepare_sources(args.corpora, args.work, tok, domain), flush=True)


if __name__ == "__main__":
    main()
