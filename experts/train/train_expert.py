"""One domain expert, alone: a two-expert MoE over the frozen public model.

    python3 train_expert.py legal --work ~/.cache/chimera-train --minutes 40

Both experts start as the public feed-forward. Frozen: embeddings, attention, norms, head, public
expert and its gate row (0). Trained: the new expert (Muon) and its gate row and bias (Adam, small
rate; the bias stays <= 0). The text is the domain's with a share of public general text, so that
the gate keeps telling them apart. Small z-loss, no load-balance loss. Stops by the clock, resumes
from `<work>/<domain>.pt`; the result is `<work>/<domain>.final.pt` with module tensor names.
With `--from-stored` a new run starts at the weights of `experts/<domain>` (fresh optimizer, other
windows) over the stored backbone, so that training can go on without the old work directory.
"""
from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch
from torch import Tensor

import corpus
import data
import gates
from compose import public_model, stored_module, with_modules
from evaluate import quick_bits
from model import FlexOlmo, Routing
from optim import AdamW, Muon
from schedule import Schedule


def initial_module(public: FlexOlmo, general: gates.Windows, own: gates.Windows,
                   batches: int) -> dict[str, Tensor]:
    """Copy of the public feed-forward plus discriminant gate rows: own text against general text."""
    stats_public = gates.collect(public, general, batches)
    stats_domain = gates.collect(public, own, batches)
    module: dict[str, Tensor] = {}
    for layer, block in enumerate(public.model.layers):
        row, bias = gates.discriminant(stats_public, stats_domain, layer)
        print(f"layer {layer}: |row| {float(row.norm()):.3f} bias {bias:.3f}", flush=True)
        module[f"layers.{layer}.gate.weight"] = row[None]
        module[f"layers.{layer}.gate.bias"] = torch.tensor([bias])
        for name, p in block.mlp.experts[0].named_parameters():
            module[f"layers.{layer}.experts.0.{name}"] = p.detach().clone()
    return module


def extract(model: FlexOlmo, slot: int = 1) -> dict[str, Tensor]:
    """The tensors of one appended module, in module naming."""
    module: dict[str, Tensor] = {}
    for layer, block in enumerate(model.model.layers):
        module[f"layers.{layer}.gate.weight"] = block.mlp.gate.weight.detach()[slot:slot + 1].clone()
        module[f"layers.{layer}.gate.bias"] = block.mlp.gate.bias.detach()[slot:slot + 1].clone()
        for name, p in block.mlp.experts[slot].named_parameters():
            module[f"layers.{layer}.experts.0.{name}"] = p.detach().clone()
    return module


def micro_batch(stream: data.Stream, step: int, micro: int, tokens: int) -> Tensor:
    """Windows of 256 tokens, in every fourth micro-batch 512."""
    length = 512 if (step + micro) % 4 == 0 else 256
    return torch.from_numpy(stream.batch(step, micro, max(1, tokens // length), length))


def train(args: argparse.Namespace) -> None:
    """Run the stage."""
    public = public_model(args.work)
    checkpoint = args.work / f"{args.domain}.pt"
    saved = torch.load(checkpoint) if checkpoint.exists() else None
    seed = args.seed + corpus.DOMAINS.index(args.domain)
    if saved:
        module = saved["module"]
    elif args.from_stored:
        module = stored_module(args.domain)
    else:
        module = initial_module(public, data.Stream(args.work, {"general": 1.0}, seed),
                                data.Stream(args.work, {args.domain: 1.0}, seed + 1), 20)
    model = with_modules(public, [module])
    del public
    trained: dict[str, Tensor] = {}
    for name, p in model.named_parameters():
        wanted = ".mlp.experts.1." in name or ".mlp.gate." in name
        p.requires_grad_(wanted)
        if wanted:
            p.grad = torch.zeros_like(p)
            trained[name] = p
    muon = Muon({n: p for n, p in trained.items() if ".experts." in n}, args.lr_muon,
                weight_decay=args.weight_decay)
    rates = {n: args.lr_gate * float(p.detach()[1].square().mean().sqrt()) if n.endswith("weight")
             else args.lr_gate for n, p in trained.items() if ".gate." in n}
    adam = AdamW({n: trained[n] for n in rates}, rates)
    step, elapsed, tokens = 0, 0.0, 0
    schedule = Schedule(args.minutes, args.decay, args.warmup,
                        trigger=args.work / f"{args.domain}.decay")
    if saved:
        step, elapsed, tokens = saved["step"], saved["elapsed"], saved["tokens"]
        schedule.decay_start, schedule.decay_end = saved["decay_start"], saved["decay_end"]
        muon.state, adam.state, adam.count = saved["muon"], saved["adam"], saved["count"]
    own = args.sources or {args.domain: 1.0}
    total = sum(own.values())
    stream = data.Stream(args.work, {**{n: (1 - args.public) * w / total for n, w in own.items()},
                                     "general": args.public}, seed)
    last, last_save, last_eval = time.time(), time.time(), time.time() if saved else 0.0
    count, sum_loss, sum_count = args.batch // args.micro, 0.0, 0
    while True:
        now = time.time()
        elapsed, last = elapsed + min(now - last, 60.0), now
        factor = schedule.factor(step, elapsed)
        if now - last_eval > args.eval_every or factor <= 0:
            last_eval = time.time()
            print(f"step {step} min {elapsed / 60:.1f} tokens {tokens / 1e6:.2f}M valid "
                  f"{quick_bits(model, args.work, 10)}", flush=True)
        if now - last_save > 180 or factor <= 0:
            last_save = time.time()
            torch.save({"module": extract(model), "muon": muon.state, "adam": adam.state,
                        "count": adam.count, "step": step, "elapsed": elapsed, "tokens": tokens,
                        "decay_start": schedule.decay_start, "decay_end": schedule.decay_end},
                       checkpoint)
        if factor <= 0:
            break
        for micro in range(count):
            ids = micro_batch(stream, step, micro, args.micro)
            routing = Routing()
            loss = model.loss(ids, 1.0 / args.batch, routing)
            z = sum(logits.logsumexp(-1).square().mean() for logits in routing.logits)
            (loss + args.z_loss / count * z).backward()
            sum_loss += loss.item()
        with torch.no_grad():
            for name in rates:
                trained[name].grad[0] = 0  # the public gate row stays as it is
            muon.step({n: p.grad for n, p in trained.items()}, factor)
            adam.step({n: p.grad for n, p in trained.items()}, factor)
            for name, p in trained.items():
                p.grad.zero_()
                if name.endswith("gate.bias"):
                    p.clamp_(max=0.0)
        step, tokens, sum_count = step + 1, tokens + args.batch, sum_count + 1
        if step % 20 == 0:
            print(f"step {step} min {elapsed / 60:.1f} tokens {tokens / 1e6:.2f}M "
                  f"loss {sum_loss / sum_count:.4f} lr x{factor:.3f}", flush=True)
            sum_loss, sum_count = 0.0, 0
    torch.save(extract(model), args.work / f"{args.domain}.final.pt")


def float_by_name(text: str) -> dict[str, float]:
    """`a=1,b=2.5` as a dictionary."""
    return {name: float(weight) for name, weight in (part.split("=") for part in text.split(","))}


def main() -> None:
    """Parse arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("domain", choices=corpus.EXPERTS)
    parser.add_argument("--work", type=Path, default=corpus.DEFAULT_WORK)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--decay", type=float, default=0.4)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1024, help="tokens per step")
    parser.add_argument("--micro", type=int, default=1024, help="tokens per micro-batch")
    parser.add_argument("--public", type=float, default=0.08, help="share of general text")
    parser.add_argument("--lr-muon", type=float, default=0.02)
    parser.add_argument("--lr-gate", type=float, default=0.01, help="relative to the row's size")
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--z-loss", type=float, default=1e-4)
    parser.add_argument("--eval-every", type=float, default=700)
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--from-stored", action="store_true",
                        help="start at experts/<domain>/weights.safetensors (give another --seed)")
    parser.add_argument("--sources", type=float_by_name, metavar="NAME=WEIGHT,…",
                        help="draw from these sources (data.py --by-source) and not from all text alike")
    args = parser.parse_args()
    if args.sources:
        args.sources = {f"{args.domain}.{name}": weight for name, weight in args.sources.items()}
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    train(args)


if __name__ == "__main__":
    main()
