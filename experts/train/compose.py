"""Models put together: the public one, and the public one with modules.

What the training stages, the evaluation and the export start from.
"""
from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import corpus
import safetensors_io
from model import Config, FlexOlmo


def public_model(work: Path) -> FlexOlmo:
    """The dense model of the public stage: finished, its latest checkpoint, or else the stored one."""
    path = next((p for p in (work / "public.final.pt", work / "public.pt") if p.exists()), None)
    if path is None:
        return FlexOlmo.from_dir(corpus.REPO / "experts" / "backbone")
    saved = torch.load(path)
    model = FlexOlmo(Config(**saved["config"]))
    model.load_state_dict(saved["model"])
    return model


def finished_module(work: Path, domain: str) -> dict[str, Tensor]:
    """The module that `train` finished in the work directory, or else the stored one."""
    path = work / f"{domain}.final.pt"
    return torch.load(path) if path.exists() else stored_module(domain)


def stored_module(domain: str) -> dict[str, Tensor]:
    """The tensors of `experts/<domain>`."""
    return safetensors_io.read(corpus.REPO / "experts" / domain / "weights.safetensors")


def with_modules(public: FlexOlmo, modules: list[dict[str, Tensor]], top_k: int = 2) -> FlexOlmo:
    """The public model with modules appended: gate rows concatenated, experts in order."""
    raw = dict(public.config.__dict__)
    raw.update(num_experts=1 + len(modules), num_experts_per_tok=min(top_k, 1 + len(modules)))
    model = FlexOlmo(Config(**raw))
    state = model.state_dict()
    with torch.no_grad():
        for name, value in public.state_dict().items():
            state[name][:1].copy_(value[:1]) if "mlp.gate" in name else state[name].copy_(value)
        for slot, module in enumerate(modules, 1):
            for name, value in module.items():
                layer, rest = name.removeprefix("layers.").split(".", 1)
                prefix = f"model.layers.{layer}.mlp."
                if rest.startswith("gate."):
                    state[prefix + rest][slot] = value[0]
                else:
                    state[prefix + rest.replace("experts.0.", f"experts.{slot}.")].copy_(value)
    return model
