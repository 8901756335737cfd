"""Optional stage 5: gate rows and biases of all modules together on a proxy mix, experts frozen.

    python3 tune_gates.py --work ~/.cache/chimera-train --steps 70

A small sample of the four training sets (a quarter each). Loss: next-token loss of the deployment's
mixture plus a small classification loss of every layer's gate (general text belongs to the public
expert). Every third step one module is loaded alone. Rewrites only the gate tensors: the result is
`<work>/<domain>.tuned.pt`, which `export.py` prefers.
"""
from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch
import torch.nn.functional as F

import corpus
import data
from model import Routing
from optim import AdamW
from train_expert import extract, public_model, with_modules

OFF = -1e9


def main() -> None:
    """Tune and write the three modules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=corpus.DEFAULT_WORK)
    parser.add_argument("--steps", type=int, default=70)
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--lr", type=float, default=0.02, help="relative to a row's size")
    parser.add_argument("--classify", type=float, default=0.03)
    parser.add_argument("--tighten", type=float, default=0.5, help="subtracted from every bias first")
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = with_modules(public_model(args.work), [torch.load(args.work / f"{d}.final.pt")
                                                   for d in corpus.EXPERTS])
    trained = {}
    for name, p in model.named_parameters():
        p.requires_grad_(".mlp.gate." in name)
        if p.requires_grad:
            p.grad = torch.zeros_like(p)
            trained[name] = p
            if name.endswith("bias"):
                p.data[1:] -= args.tighten
    rates = {n: args.lr * float(p.detach()[1:].square().mean().sqrt()) if n.endswith("weight")
             else args.lr for n, p in trained.items()}
    adam = AdamW(trained, rates)
    streams = [data.Stream(args.work, {d: 1.0}, args.seed + i) for i, d in enumerate(corpus.DOMAINS)]
    labels = torch.arange(4).repeat_interleave(args.length)
    start = time.time()
    for step in range(args.steps):
        ids = torch.cat([torch.from_numpy(s.batch(step, 0, 1, args.length)) for s in streams])
        alone = 1 + step // 3 % 3 if step % 3 == 2 else 0
        saved = {n: p.detach().clone() for n, p in trained.items() if n.endswith("bias")}
        if alone:
            for name in saved:
                for slot in {1, 2, 3} - {alone}:
                    trained[name].data[slot] = OFF
        routing = Routing()
        loss = model.loss(ids, 1.0 / labels.numel(), routing)
        aux = torch.zeros(())
        if not alone:
            aux = sum(F.cross_entropy(l.flatten(0, 1), labels) for l in routing.logits)
        (loss + args.classify * aux).backward()
        with torch.no_grad():
            for name, value in saved.items():
                trained[name].copy_(value)
            for p in trained.values():
                p.grad[0] = 0  # the public row stays as it is
                if alone:
                    for slot in {1, 2, 3} - {alone}:
                        p.grad[slot] = 0
            adam.step({n: p.grad for n, p in trained.items()}, 1 - step / args.steps)
            for name, p in trained.items():
                p.grad.zero_()
                if name.endswith("bias"):
                    p.clamp_(max=0.0)
        if step % 4 == 0:
            print(f"step {step} loss {loss.item():.4f} classify {float(aux) / 6:.4f} "
                  f"{time.time() - start:.0f} s", flush=True)
    for slot, domain in enumerate(corpus.EXPERTS, 1):
        torch.save(extract(model, slot), args.work / f"{domain}.tuned.pt")


if __name__ == "__main__":
    main()
