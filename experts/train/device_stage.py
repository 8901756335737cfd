"""One stage of train_device.py: what it trains, its optimizers and its schedule."""
from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

import corpus
import device_model
from model import FlexOlmo
from optim import AdamW, Muon
from pieces import Pieces
from schedule import Schedule

STAGES = ("public", *corpus.EXPERTS)
# Of the minutes; the rest is for the gates, and for starting and writing.
PART = {"public": 0.55, **{d: 0.13 for d in corpus.EXPERTS}}


class Stage:
    """What one stage trains, with its optimizers: the state that a checkpoint holds."""

    def __init__(self, name: str, model: FlexOlmo, args: argparse.Namespace) -> None:
        self.name, self.model, self.args = name, model.to(args.device), args
        for n, p in model.named_parameters():
            wanted = "mlp.gate" not in n if name == "public" else \
                ".mlp.experts.1." in n or ".mlp.gate." in n
            p.requires_grad_(wanted)
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        matrices = {n: p for n, p in self.trained.items()
                    if ".layers." in n and p.dim() == 2 and ".gate.weight" not in n}
        self.muon = Muon(matrices, args.lr_muon if name == "public" else args.lr_expert,
                         weight_decay=0.05 if name == "public" else 0.02)
        rates = {n: self.rate(n, p) for n, p in self.trained.items() if n not in matrices}
        self.adam = AdamW({n: self.trained[n] for n in rates}, rates)
        minutes = args.minutes * PART[name]
        self.schedule = Schedule(minutes, args.decay if name == "public" else 0.4, 40)
        self.step, self.elapsed, self.tokens = 0, 0.0, 0

    def rate(self, name: str, p: Tensor) -> float:
        """The learning rate of what Muon does not train."""
        if ".gate." in name:  # relative to the row's size
            return 0.01 * float(p.detach()[1].square().mean().sqrt()) if name.endswith("weight") else 0.01
        return 0.05 if "embed" in name else 0.008 if "lm_head" in name else 0.01

    def mix(self) -> dict[str, float]:
        """Share of each domain's text."""
        if self.name == "public":
            slice_ = self.args.slice
            return {"general": 1 - 3 * slice_, **{d: slice_ for d in corpus.EXPERTS}}
        return {self.name: 0.92, "general": 0.08}

    def take_step(self, pieces: Pieces, factor: float) -> None:
        """One update."""
        long = factor < 0.5 and self.step % 4 == 0
        length = min(self.args.length * (2 if long else 1), self.model.config.max_position_embeddings)
        rows = max(1, self.args.batch // length)
        ids = pieces.batch(self.mix(), self.args.seed + STAGES.index(self.name), self.step, rows, length)
        device_model.loss(self.model, torch.from_numpy(ids).to(self.args.device), self.args.bf16,
                          0.0 if self.name == "public" else 1e-4).backward()
        with torch.no_grad():
            for n, p in self.trained.items():
                if ".gate." in n:
                    p.grad[0] = 0  # the public expert's row stays as it is
            grads = {n: p.grad for n, p in self.trained.items()}
            self.muon.step(grads, factor)
            self.adam.step(grads, factor)
            for p in self.trained.values():
                p.grad = None
        self.step, self.tokens = self.step + 1, self.tokens + rows * length

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "muon": self.muon.state, "adam": self.adam.state,
                "count": self.adam.count, "step": self.step, "elapsed": self.elapsed,
                "tokens": self.tokens, "decay": (self.schedule.decay_start, self.schedule.decay_end)}

    def restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        for n in self.muon.state:
            self.muon.state[n].copy_(saved["muon"][n])
        for n in self.adam.state:
            for to, value in zip(self.adam.state[n], saved["adam"][n]):
                to.copy_(value)
        self.adam.count, self.step = saved["count"], saved["step"]
        self.elapsed, self.tokens = saved["elapsed"], saved["tokens"]
        self.schedule.decay_start, self.schedule.decay_end = saved["decay"]
