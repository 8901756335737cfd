"""Public stage: the dense model (one expert per layer) on general text plus a slice of each domain.

    python3 train_public.py --work ~/.cache/chimera-train --minutes 65

Several single-threaded worker processes share the parameters; each step's micro-batches are handed
out one at a time, every worker sums gradients into its own buffer, and the optimiser is divided
over the workers. Stops by the clock (`schedule.py`); `<work>/public.decay` starts the decay early.
Resumes from `<work>/public.pt`; the result is `<work>/public.final.pt`.
"""
from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch
import torch.multiprocessing as mp
from torch import Tensor

import corpus
import data
from evaluate import quick_bits
from model import Config, FlexOlmo
from optim import AdamW, Muon
from schedule import Schedule


def init(model: FlexOlmo, seed: int) -> None:
    """Initial weights: unit-scale stream, small head, fan-in scaled matrices."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("embed_tokens.weight"):
                p.normal_(0, 0.7, generator=gen)
            elif name == "lm_head.weight":
                p.normal_(0, 0.01, generator=gen)
            elif name.endswith("mlp.gate.weight"):
                p.zero_()
            elif p.dim() == 2:
                p.normal_(0, p.shape[1] ** -0.5, generator=gen)
            elif "layernorm" in name:
                p.fill_(0.5)


def owner_of(params: dict[str, Tensor], workers: int) -> dict[str, int]:
    """Spread the tensors over the workers: matrices of one shape in turn, the big two apart."""
    seen: dict[tuple, int] = {}
    owners = {}
    for name, p in params.items():
        key = ("big",) if p.numel() > 1_000_000 else tuple(p.shape)
        owners[name] = seen.get(key, 0) % workers
        seen[key] = seen.get(key, 0) + 1
    return owners


class Shared:
    """What the workers share besides parameters and gradients."""

    def __init__(self, ctx, workers: int) -> None:
        self.barrier = ctx.Barrier(workers)
        self.micro = ctx.Value("i", 0)
        self.factor = ctx.Value("d", 1.0)
        self.decaying = ctx.Value("i", 0)
        self.save = ctx.Value("i", 0)
        self.loss = torch.zeros(workers, dtype=torch.float64).share_memory_()


def micro_batch(stream: data.Stream, step: int, micro: int, tokens: int, long: bool) -> Tensor:
    """Windows of 256 tokens; late in the decay 512, every fourth micro-batch 1024."""
    length = 256 if not long else (1024 if micro % 4 == 0 else 512)
    rows = max(1, (tokens if not long else max(tokens, length)) // length)
    return torch.from_numpy(stream.batch(step, micro, rows, length))


def worker(rank: int, args: argparse.Namespace, model: FlexOlmo, grads: list[dict[str, Tensor]],
           shared: Shared, start: dict) -> None:
    """One training process."""
    torch.set_num_threads(1)
    params = {n: p for n, p in model.named_parameters() if n in grads[0]}
    for name, p in params.items():
        p.grad = grads[rank][name]
    owners = owner_of(params, args.workers)
    mine = {n: p for n, p in params.items() if owners[n] == rank}
    muon = Muon({n: p for n, p in mine.items() if ".layers." in n and p.dim() == 2},
                args.lr_muon, weight_decay=args.weight_decay)
    rates = {n: args.lr_embed if "embed" in n else args.lr_head if "lm_head" in n else args.lr_norm
             for n in mine if n not in muon.params}
    adam = AdamW({n: mine[n] for n in rates}, rates)
    state_file = args.work / f"{args.name}.opt{rank}.pt"
    step, elapsed, tokens = start["step"], start["elapsed"], start["tokens"]
    if step and state_file.exists():
        saved = torch.load(state_file)
        muon.state, adam.state, adam.count = saved["muon"], saved["adam"], saved["count"]
    mix = {"general": 1 - 3 * args.slice, **{d: args.slice for d in corpus.EXPERTS}}
    stream = data.Stream(args.work, mix, args.seed)
    schedule = Schedule(args.minutes, args.decay, trigger=args.work / f"{args.name}.decay")
    schedule.decay_start, schedule.decay_end = start["decay_start"], start["decay_end"]
    per_step, per_micro = args.batch, args.micro
    last, last_save, last_eval = time.time(), time.time(), time.time()
    log_tokens, log_loss, log_time = 0, 0.0, time.time()
    while True:
        if rank == 0:
            now = time.time()
            elapsed += min(now - last, 60.0)
            last = now
            shared.factor.value = schedule.factor(step, elapsed)
            shared.decaying.value = int(schedule.decaying and shared.factor.value < 0.5)
            shared.micro.value = 0
            shared.save.value = int(now - last_save > 180 or shared.factor.value <= 0)
        shared.barrier.wait()
        factor, long = shared.factor.value, bool(shared.decaying.value)
        if shared.save.value:
            last_save = time.time()
            torch.save({"muon": muon.state, "adam": adam.state, "count": adam.count}, state_file)
            if rank == 0:
                torch.save({"model": model.state_dict(), "step": step, "elapsed": elapsed,
                            "tokens": tokens, "config": model.config.__dict__,
                            "decay_start": schedule.decay_start, "decay_end": schedule.decay_end},
                           args.work / f"{args.name}.pt")
                if now - last_eval > args.eval_every or factor <= 0:
                    last_eval = time.time()
                    bits = quick_bits(model, args.work)
                    print(json.dumps({"step": step, "minutes": round(elapsed / 60, 1),
                                      "tokens": tokens, "valid_bpb": bits}), flush=True)
        if factor <= 0:
            break
        size = max(per_micro, 1024) if long else per_micro
        count = per_step // size
        shared.loss[rank] = 0
        while True:
            with shared.micro.get_lock():
                micro = shared.micro.value
                shared.micro.value += 1
            if micro >= count:
                break
            ids = micro_batch(stream, step, micro, size, long)
            loss = model.loss(ids, 1.0 / (count * size))
            loss.backward()
            shared.loss[rank] += loss.item()
        shared.barrier.wait()
        if rank == 0:
            log_tokens += count * size
            tokens += count * size
            log_loss += float(shared.loss.sum())
        summed = {}
        for name in mine:
            summed[name] = grads[0][name]
            for other in grads[1:]:
                summed[name].add_(other[name])
        muon.step(summed, factor)
        adam.step(summed, factor)
        for name in mine:
            for each in grads:
                each[name].zero_()
        step += 1
        if rank == 0 and step % 20 == 0:
            seconds = time.time() - log_time
            print(f"step {step} min {elapsed / 60:.1f} tokens {tokens / 1e6:.2f}M "
                  f"loss {log_loss / 20:.4f} lr x{factor:.3f} {log_tokens / seconds:.0f} tok/s",
                  flush=True)
            log_tokens, log_loss, log_time = 0, 0.0, time.time()


def main() -> None:
    """Parse arguments, set up shared memory and start the workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=corpus.DEFAULT_WORK)
    parser.add_argument("--name", default="public")
    parser.add_argument("--minutes", type=float, default=65)
    parser.add_argument("--decay", type=float, default=0.6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4096, help="tokens per step")
    parser.add_argument("--micro", type=int, default=512, help="tokens per micro-batch")
    parser.add_argument("--slice", type=float, default=0.01, help="share of each domain")
    parser.add_argument("--lr-muon", type=float, default=0.03)
    parser.add_argument("--lr-embed", type=float, default=0.05)
    parser.add_argument("--lr-head", type=float, default=0.008)
    parser.add_argument("--lr-norm", type=float, default=0.01)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--eval-every", type=float, default=300)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = FlexOlmo(Config())
    init(model, args.seed)
    start = {"step": 0, "elapsed": 0.0, "tokens": 0, "decay_start": -1.0, "decay_end": -1.0}
    checkpoint = args.work / f"{args.name}.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        start = {k: saved[k] for k in start}
    for name, p in model.named_parameters():
        if "mlp.gate" in name:
            p.requires_grad_(False)  # one expert: the gate has no effect
    model.share_memory()
    grads = [{n: torch.zeros_like(p).share_memory_() for n, p in model.named_parameters()
              if p.requires_grad} for _ in range(args.workers)]
    ctx = mp.get_context("fork")
    shared = Shared(ctx, args.workers)
    jobs = [ctx.Process(target=worker, args=(r, args, model, grads, shared, start))
            for r in range(args.workers)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    if any(job.exitcode for job in jobs):
        raise SystemExit("a worker failed")
    torch.save({"model": model.state_dict(), "config": model.config.__dict__},
               args.work / f"{args.name}.final.pt")


if __name__ == "__main__":
    main()
