"""Continues a prompt with and without a module: sample.py "PROMPT" --module legal --seed 1"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch

import corpus
import safetensors_io
from compose import with_modules
from model import FlexOlmo
from tokenizer import Tokenizer


@torch.no_grad()
def generate(model: FlexOlmo, tok: Tokenizer, prompt: str, tokens: int, temperature: float,
             top_p: float, seed: int) -> str:
    """Nucleus sampling without a cache (the texts are short)."""
    gen = torch.Generator().manual_seed(seed)
    ids = [tok.eos, *tok.encode(prompt)]
    start = len(ids)
    for _ in range(tokens):
        logits = model.lm_head(model.hidden(torch.tensor([ids[-512:]]))[0, -1])
        if temperature <= 0:
            best = int(logits.argmax())
        else:
            p, order = torch.softmax(logits / temperature, -1).sort(descending=True)
            p[p.cumsum(0) - p > top_p] = 0
            best = int(order[torch.multinomial(p, 1, generator=gen)])
        if best == tok.eos:
            break
        ids.append(best)
    return tok.decode(ids[start:])


def main() -> None:
    """Print the continuation by the backbone and by the backbone with the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("--module", choices=corpus.EXPERTS)
    parser.add_argument("--experts", type=Path, default=corpus.REPO / "experts")
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    backbone = FlexOlmo.from_dir(args.experts / "backbone")
    tok = Tokenizer(args.experts / "backbone" / "tokenizer.json")
    settings = (tok, args.prompt, args.tokens, args.temperature, args.top_p, args.seed)
    print("[backbone]", generate(backbone, *settings))
    if args.module:
        module = safetensors_io.read(args.experts / args.module / "weights.safetensors")
        print(f"[+{args.module}]", generate(with_modules(backbone, [module]), *settings))


if __name__ == "__main__":
    main()
