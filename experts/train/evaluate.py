"""Bits per byte of the exported backbone with and without modules, and the share of each module.

    python3 evaluate.py --work ~/.cache/chimera-train --out table.json [--every 4]
    python3 evaluate.py --excerpts excerpts --out table.json

Documents are cut into windows of 512 tokens; each window sees the last token of the one before, the
first begins with the end-of-text token, so every token is predicted once. With several modules two
experts of all are used per token and layer, as the deployment does. A module's share is its part
of the kept gate weights, normalised per token and averaged over layers and tokens.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

import corpus
import data
import safetensors_io
from compose import with_modules
from model import FlexOlmo, Routing

if TYPE_CHECKING:
    from tokenizer import Tokenizer

WINDOW = 512
ROWS = {"backbone": (), "+legal": ("legal",), "+bio": ("bio",), "+finance": ("finance",),
        "all": corpus.EXPERTS, "all -legal": ("bio", "finance"),
        "all -bio": ("legal", "finance"), "all -finance": ("legal", "bio")}


def windows(doc: np.ndarray, length: int) -> list[np.ndarray]:
    """Non-overlapping windows: every token after the leading end-of-text is predicted once."""
    return [doc[at:at + length + 1] for at in range(0, len(doc) - 1, length)]


@torch.no_grad()
def nats(model: FlexOlmo, ids: torch.Tensor, routing: Routing | None = None) -> float:
    """Summed negative log-likelihood of windows [B, T + 1]."""
    return float(model.loss(ids, 1.0, routing))


def quick_bits(model: FlexOlmo, work: Path, count: int = 24) -> dict[str, float]:
    """Bits per byte on `count` windows of each valid set, bytes estimated from the whole set."""
    sizes = json.loads((work / "sizes.json").read_text())
    out = {}
    for domain in corpus.DOMAINS:
        full = [w for doc in data.load_valid(work, domain) for w in windows(doc, WINDOW)
                if len(w) == WINDOW + 1]
        pick = full[::max(1, len(full) // count)][:count]
        ids = torch.from_numpy(np.stack(pick).astype(np.int64))
        total = sum(nats(model, ids[i:i + 2]) for i in range(0, len(ids), 2))
        size = sizes[domain]["valid"]
        per_token = size["bytes"] / size["tokens"]
        out[domain] = round(total / math.log(2) / (len(ids) * WINDOW * per_token), 4)
    return out


def score(model: FlexOlmo, docs: list[np.ndarray], sizes: list[int],
          names: tuple[str, ...]) -> tuple[float, dict[str, float]]:
    """Bits per byte over documents and the share of each appended module."""
    total, tokens = 0.0, 0
    mass = torch.zeros(1 + len(names), dtype=torch.float64)
    for doc in docs:
        for window in windows(doc, WINDOW):
            routing = Routing()
            ids = torch.from_numpy(window.astype(np.int64))[None]
            total += nats(model, ids, routing)
            tokens += len(window) - 1
            for p in routing.weights:
                mass += (p / p.sum(-1, keepdim=True)).sum((0, 1)).double()
    share = mass / max(1.0, float(mass.sum()))
    return (total / math.log(2) / sum(sizes),
            {n: round(float(s), 4) for n, s in zip(names, share[1:])})


def columns(args: argparse.Namespace, tok: Tokenizer) -> dict[str, tuple[list, list[int]]]:
    """Encoded documents and their byte counts per domain."""
    out = {}
    for domain in corpus.DOMAINS:
        if args.excerpts:
            texts = [(args.excerpts / f"{domain}.txt").read_text(encoding="utf-8")]
        else:
            texts = corpus.texts(args.corpora, domain, args.part)[::args.every]
        docs = [np.array([tok.eos, *tok.encode(t)]) for t in texts]
        out[domain] = (docs, [len(t.encode()) for t in texts])
    return out


def judge(table: dict[str, dict]) -> dict[str, dict[str, float | bool]]:
    """The inequalities that the table has to meet."""
    out: dict[str, dict[str, float | bool]] = {}
    base, full = table["backbone"]["bits"], table["all"]["bits"]
    for d in corpus.EXPERTS:
        alone = table["+" + d]["bits"]
        gain = 1 - alone[d] / base[d]
        kept = (base[d] - full[d]) / (base[d] - alone[d]) if base[d] != alone[d] else 0.0
        shares = table["all"]["shares"][d]
        out[d] = {"gain": round(gain, 4), "kept": round(kept, 4),
                  "general": round(alone["general"] / base["general"] - 1, 4),
                  "own_share_largest": shares[d] == max(shares.values()),
                  "ok": gain >= 0.12 and kept >= 0.9}
    worse = full["general"] / base["general"] - 1
    out["general"] = {"worse": round(worse, 4), "ok": worse <= 0.02}
    return out


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=Path, default=corpus.DEFAULT_CORPORA)
    parser.add_argument("--experts", type=Path, default=corpus.REPO / "experts")
    parser.add_argument("--excerpts", type=Path, help="score these files instead of the corpus")
    parser.add_argument("--part", default="valid")
    parser.add_argument("--every", type=int, default=1, help="every n-th document only")
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    from tokenizer import Tokenizer  # needs `regex`, which who only imports this does without
    torch.set_num_threads(1)
    backbone = FlexOlmo.from_dir(args.experts / "backbone")
    tok = Tokenizer(args.experts / "backbone" / "tokenizer.json")
    texts = columns(args, tok)
    modules = {d: safetensors_io.read(args.experts / d / "weights.safetensors")
               for d in corpus.EXPERTS if (args.experts / d / "weights.safetensors").exists()}
    table: dict[str, dict] = {}
    for row in args.rows:
        names = ROWS[row]
        if any(n not in modules for n in names):
            continue
        start = time.time()
        model = with_modules(backbone, [modules[n] for n in names]) if names else backbone
        cells = {d: score(model, *texts[d], names) for d in corpus.DOMAINS}
        table[row] = {"bits": {d: round(c[0], 4) for d, c in cells.items()},
                      "shares": {d: c[1] for d, c in cells.items()}}
        print(f"{row:13s}" + "".join(f"{d} {c[0]:.4f}  " for d, c in cells.items())
              + f"{time.time() - start:.0f} s", flush=True)
        if len(names) == 3:
            for d in corpus.DOMAINS:
                print(f"    share on {d}: {cells[d][1]}")
    result = {"table": table}
    if set(ROWS) <= set(table):
        result["judgement"] = judge(table)
        print(json.dumps(result["judgement"], indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
