"""The whole recipe in one command, on one GPU and within the minutes given: backbone, experts, gates.

    python3 train_device.py --pieces PIECES --work WORK --out PARTS --minutes 13 --within 570

PIECES is what `pieces.py pack` wrote; nothing else is needed but PyTorch and NumPy. Stages: the public
model (dense) on general text and a slice of each domain; each expert alone over the frozen public model;
the gate rows of all together. Every stage ends by the clock (schedule.py) at its part of --minutes of
training, over all calls together; a call ends by itself after --within seconds, and the same command goes
on from WORK/device.pt, which is written every minute, at the end of a call and on SIGTERM. With it PARTS
gets what there is, bf16, in parts of at most 16 MiB: `pieces.py join PARTS WORK` here, then export.py.
curve.json among them has bits per byte over training tokens, of the kinds that are trained on (own) and
of those that are left out (left).
"""
from __future__ import annotations

import argparse
import io
import json
import math
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import corpus
import device_model
from compose import with_modules
from device_stage import STAGES, Stage
from model import Config, FlexOlmo
from pieces import Pieces, split
from train_expert import extract, initial_module
from train_public import init
from tune_gates import fit_modules, load_windows

SAVE_SECONDS = 60
WINDOW = 512  # tokens that are evaluated together


class Run:
    """All stages, what they left so far, and the clock of this call."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.pieces = args, Pieces(args.pieces)
        self.began = self.saved = time.monotonic()
        self.stop = False
        self.done: dict[str, dict[str, Tensor]] = {}  # of finished stages
        self.curve: list[dict[str, Any]] = []
        self.config = Config(hidden_size=args.hidden, num_hidden_layers=args.layers,
                             intermediate_size=args.ff, num_attention_heads=args.heads,
                             num_key_value_heads=args.heads)
        self.stage: Stage | None = None
        args.work.mkdir(parents=True, exist_ok=True)
        self.checkpoint = args.work / "device.pt"
        if self.checkpoint.exists():
            self.resume()

    def resume(self) -> None:
        saved = torch.load(self.checkpoint, map_location="cpu")
        if saved["config"] != self.config.__dict__:
            raise SystemExit(f"{self.checkpoint}: found another size of model. Give another --work")
        self.done, self.curve = saved["done"], saved["curve"]
        if saved["stage"]:
            self.stage = self.begin(saved["stage"])
            self.stage.restore(saved["state"])
        print(f"resumed: {', '.join(self.done) or 'nothing'} done"
              + (f", {self.stage.name} at step {self.stage.step}" if self.stage else ""), flush=True)

    def public(self) -> FlexOlmo:
        model = FlexOlmo(self.config)
        model.load_state_dict(self.done["public"])
        return model

    def begin(self, name: str) -> Stage:
        """A stage at its start."""
        if name == "public":
            model = FlexOlmo(self.config)
            init(model, self.args.seed)
        else:
            public = self.public()
            module = initial_module(public, WindowsOf(self.pieces, "general"),
                                    WindowsOf(self.pieces, name), self.args.statistics)
            model = with_modules(public, [module])
        return Stage(name, model, self.args)

    def out_of_time(self) -> bool:
        return self.stop or time.monotonic() - self.began > self.args.within

    def save(self) -> None:
        """Checkpoint, whole at any time, and parts, of which a cut may leave a mixture: join() tells."""
        stage = self.stage
        fresh = self.checkpoint.with_suffix(".new")
        torch.save({"config": self.config.__dict__, "done": self.done, "curve": self.curve,
                    "stage": stage.name if stage else "", "state": stage.state() if stage else None}, fresh)
        fresh.rename(self.checkpoint)
        split(self.files(), self.args.out)
        self.saved = time.monotonic()

    def files(self) -> dict[str, bytes]:
        """What export.py reads, in bf16 (gate rows in float32)."""
        parts = dict(self.done)
        if self.stage and self.stage.name == "public":
            parts["public"] = self.stage.model.state_dict()
        elif self.stage:
            parts[self.stage.name] = extract(self.stage.model)
        out = {"curve.json": json.dumps(self.curve, indent=1).encode()}
        for name, tensors in parts.items():
            short = {n: t.detach().cpu() if ".gate." in n else t.detach().cpu().bfloat16()
                     for n, t in tensors.items()}
            blob = io.BytesIO()
            torch.save({"model": short, "config": self.config.__dict__} if name == "public" else short, blob)
            domain, _, tuned = name.partition(".")
            out[f"{domain}.{tuned or 'final'}.pt"] = blob.getvalue()
        return out

    def measure(self, model: FlexOlmo, domains: tuple[str, ...]) -> dict[str, float]:
        """Bits per byte on windows of the valid sets: kinds trained on, and left out."""
        out = {}
        with torch.no_grad():
            for name in (f"{d}.{part}" for d in domains for part in ("own", "left")):
                ids = self.pieces.valid[name].astype(np.int64)
                count = min(self.args.windows, (len(ids) - 1) // WINDOW)
                if count == 0:
                    continue
                at = [i * (len(ids) - WINDOW - 1) // count for i in range(count)]
                rows = torch.from_numpy(np.stack([ids[a:a + WINDOW + 1] for a in at]))
                nats = [float(device_model.loss(model, part.to(self.args.device), self.args.bf16))
                        * len(part) for part in rows.split(8)]
                a_token = int(self.pieces.valid[name + ".bytes"][0]) / len(ids)
                out[name] = round(sum(nats) / len(rows) / math.log(2) / a_token, 4)
        return out

    def note(self, stage: Stage) -> None:
        """A point of the curve."""
        domains = corpus.DOMAINS if stage.name == "public" else (stage.name, "general")
        point = {"stage": stage.name, "minutes": round(stage.elapsed / 60, 2), "step": stage.step,
                 "tokens": stage.tokens, "bits": self.measure(stage.model, domains)}
        self.curve.append(point)
        print(json.dumps(point), flush=True)

    def train(self) -> bool:
        """The current stage until its end (True), or until this call's."""
        stage, last, took = self.stage, time.monotonic(), False
        assert stage is not None
        while True:
            now = time.monotonic()
            stage.elapsed, last = stage.elapsed + now - last, now
            factor = stage.schedule.factor(stage.step, stage.elapsed)
            over = factor <= 0
            # Every call goes on by a step, however long its start took.
            ended = took and self.out_of_time()
            if over or now - self.saved > SAVE_SECONDS or ended:
                self.note(stage)
                self.save()
                last = time.monotonic()  # measuring and writing are not training
                if over or ended:
                    return over
            stage.take_step(self.pieces, factor)
            took = True

    def gates(self) -> None:
        """The rows of all modules together, on the CPU."""
        modules = [self.done[d] for d in corpus.EXPERTS]
        windows = load_windows(self.args.pieces / "gates.npz")
        tuned = fit_modules(self.public(), modules, windows, self.args.gate_steps)
        for domain, module in zip(corpus.EXPERTS, tuned):
            self.done[f"{domain}.tuned"] = module
        rows = {"backbone": [], **{d: [t] for d, t in zip(corpus.EXPERTS, tuned)}, "all three": tuned}
        table = {}
        for row, each in rows.items():
            model = (with_modules(self.public(), each) if each else self.public()).to(self.args.device)
            table[row] = self.measure(model, corpus.DOMAINS)
        self.curve.append({"stage": "table", "bits": table})
        print(json.dumps(table, indent=1), flush=True)

    def go(self) -> bool:
        """Everything that is left; False if this call's time ended before it was done."""
        for name in STAGES:
            if name in self.done:
                continue
            if self.stage is None:
                self.stage = self.begin(name)
            if not self.train():
                return False
            state = self.stage.model.state_dict() if name == "public" else extract(self.stage.model)
            self.done[name] = {n: t.detach().cpu().clone() for n, t in state.items()}
            self.stage = None
            self.save()
            if self.out_of_time():
                return False
        if f"{corpus.EXPERTS[0]}.tuned" not in self.done:
            self.gates()
            self.save()
        return True


class WindowsOf:
    """Pieces as the windows of gates.collect: those of one domain."""

    def __init__(self, pieces: Pieces, domain: str) -> None:
        self.pieces, self.domain = pieces, domain

    def batch(self, step: int, micro: int, rows: int, length: int) -> np.ndarray:
        return self.pieces.batch({self.domain: 1.0}, 1000 + micro, step, rows, length)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("pieces", "work", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=13, help="of training, all calls together")
    parser.add_argument("--within", type=float, default=570, help="seconds until this call ends")
    parser.add_argument("--device", type=torch.device,
                        default=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction,
                        default=torch.cuda.is_available())
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--ff", type=int, default=512)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32768, help="tokens of a step")
    parser.add_argument("--length", type=int, default=512, help="tokens of a window")
    parser.add_argument("--slice", type=float, default=0.01, help="share of each domain, public stage")
    parser.add_argument("--decay", type=float, default=0.6)
    parser.add_argument("--lr-muon", type=float, default=0.03)
    parser.add_argument("--lr-expert", type=float, default=0.02)
    parser.add_argument("--windows", type=int, default=48, help="that each set is measured on")
    parser.add_argument("--statistics", type=int, default=20, help="batches that gate rows begin with")
    parser.add_argument("--gate-steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    """Trains until all is done or this call's time is over."""
    args = arguments()
    torch.manual_seed(args.seed)
    run = Run(args)

    def end(*_: object) -> None:
        run.stop = True

    signal.signal(signal.SIGTERM, end)
    print(f"{run.pieces.tokens / 1e6:.1f} M tokens in pieces; {args.device}, "
          f"{'bf16' if args.bf16 else 'float32'}", flush=True)
    done = run.go()
    print("all done" if done else "time is over; the same command goes on", flush=True)


if __name__ == "__main__":
    main()
