#!/usr/bin/env python3
"""Chimera beside llama.cpp on the same GGUF files, by turns.

    bench/compare.py --llama DIR MODEL.gguf:PRECISION ... [--threads N] [--rounds 5] [--json FILE]

DIR holds llama-bench, and llama-batched-bench for the row with many sequences (without it the row is
left out). PRECISION is Chimera's for that file: bf16, q8, q4, or classes (experts=q4,attention=q4,head=q8).
Files come from `chimera-bench synth SHAPE.yaml --gguf --type bf16|q8_0|q4_0 --out MODEL.gguf`.

A round runs one program, then the other, so that a machine that changes its pace changes it for both;
what is told are medians of the rounds and the median of their ratios. Standard library only.
"""
from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPT, TOKENS, STREAMS, STREAM_TOKENS = 512, 32, 16, 8
CONTEXT = 64  # positions before those that are decoded


def output(command: list[str]) -> str:
    """What a program prints; ends this one when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"compare: {' '.join(command)} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


class Llama:
    """llama.cpp's own benches, with one repetition a round."""

    def __init__(self, folder: pathlib.Path, model: str, threads: int) -> None:
        self.bench, self.batched = folder / "llama-bench", folder / "llama-batched-bench"
        self.model, self.threads = model, threads
        if not self.bench.is_file():
            sys.exit(f"compare: {self.bench}: not there (expected llama.cpp's llama-bench)")

    def rate(self, *options: str) -> float:
        rows = json.loads(output([str(self.bench), "-m", self.model, "-t", str(self.threads), "-r", "1",
                                  "-o", "json", *options]))
        return float(rows[-1]["avg_ts"])

    def prefill(self) -> float:
        return self.rate("-p", str(PROMPT), "-n", "0")

    def decode(self) -> float:
        return self.rate("-p", "0", "-n", str(TOKENS), "-d", str(CONTEXT))

    def batch(self) -> float:
        room = STREAMS * (CONTEXT + STREAM_TOKENS)
        lines = output([str(self.batched), "-m", self.model, "-t", str(self.threads), "-c", str(room),
                        "-npp", str(CONTEXT), "-ntg", str(STREAM_TOKENS), "-npl", str(STREAMS),
                        "--output-format", "jsonl"])
        return float(json.loads([line for line in lines.splitlines() if line.startswith("{")][-1])["speed_tg"])


class Chimera:
    """chimera-bench, one round each."""

    def __init__(self, program: pathlib.Path, model: str, precision: str, threads: int) -> None:
        if not program.is_file():
            sys.exit(f"compare: {program}: not there (expected chimera-bench; build it, or name it by --bench)")
        self.command = [str(program)]
        self.options = ["--backbone", model, "--precision", precision, "--threads", str(threads),
                        "--rounds", "1", "--json"]

    def rate(self, workload: str, *options: str) -> tuple[float, float]:
        """Tokens per second, and the fraction of the limit."""
        report = json.loads(output([*self.command, workload, *self.options, *options]))
        figures = report["figures"]
        return figures[0]["median"], figures[1]["fraction"]["median"]

    def prefill(self) -> tuple[float, float]:
        return self.rate("prefill", "--tokens", str(PROMPT))

    def decode(self) -> tuple[float, float]:
        return self.rate("decode", "--tokens", str(TOKENS), "--context", str(CONTEXT))

    def batch(self) -> tuple[float, float]:
        return self.rate("batch", "--streams", str(STREAMS), "--tokens", str(STREAM_TOKENS),
                         "--context", str(CONTEXT))


def rounds_of(peer: Callable[[], float], ours: Callable[[], tuple[float, float]],
              rounds: int) -> dict:
    """Samples of one figure; the peer goes first in every other round."""
    samples = []
    for i in range(rounds):
        theirs = peer() if i % 2 == 0 else None
        mine, fraction = ours()
        theirs = peer() if i % 2 == 1 else theirs
        samples.append({"peer": theirs, "chimera": mine, "fraction": fraction, "ratio": mine / theirs})
    return {"samples": samples} | {key: statistics.median(s[key] for s in samples) for key in samples[0]}


def table(results: list[dict]) -> str:
    lines = [f"{'':<24}{'':<10}{'llama.cpp':>11}{'Chimera':>11}{'ratio':>8}  {'(from, to)':<16}{'of limit':>8}"]
    for r in results:
        ratios = [s["ratio"] for s in r["samples"]]
        spread = f"({min(ratios):.2f}, {max(ratios):.2f})"
        lines.append(f"{r['model'][:23]:<24}{r['figure']:<10}{r['peer']:>11.2f}{r['chimera']:>11.2f}"
                     f"{r['ratio']:>8.2f}  {spread:<16}{r['fraction']:>8.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL.gguf:PRECISION")
    parser.add_argument("--llama", type=pathlib.Path, required=True, help="folder with llama-bench")
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build" / "bin" / "chimera-bench")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--figures", default="decode,prefill,batch", help="those to take, of these")
    parser.add_argument("--json", type=pathlib.Path, help="also write all samples to this file")
    args = parser.parse_args()
    if args.rounds < 1:
        sys.exit(f"compare: --rounds: found {args.rounds} (expected 1 or more)")
    results = []
    for spec in args.models:
        model, separator, precision = spec.rpartition(":")
        if not separator:
            sys.exit(f"compare: {spec}: found no precision (expected MODEL.gguf:q8)")
        llama = Llama(args.llama, model, args.threads)
        chimera = Chimera(args.bench, model, precision, args.threads)
        for figure in args.figures.split(","):
            if figure not in ("decode", "prefill", "batch"):
                sys.exit(f"compare: --figures: found {figure} (expected decode, prefill or batch)")
            if figure == "batch" and not llama.batched.is_file():
                print(f"compare: no batch: {llama.batched} is not there", file=sys.stderr)
                continue
            found = rounds_of(getattr(llama, figure), getattr(chimera, figure), args.rounds)
            results.append({"model": pathlib.Path(model).name, "figure": figure} | found)
            print(table(results[-1:]).splitlines()[1], file=sys.stderr, flush=True)
    print(f"{args.threads} threads, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}; tokens/s")
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
