"""Adapters as PEFT writes them, with random numbers, and the checkpoints that they merge into; used by
test_lora.py. Merging is restated in NumPy and float64. Needs NumPy.
"""
from __future__ import annotations

import json
import pathlib
import re
import shutil

import numpy as np
from assembly_parents import read_tensors, to_f64
from random_checkpoint import write_safetensors

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LATENT = ["q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
FEED_FORWARD = ["gate_proj", "up_proj", "down_proj"]


def part_names(checkpoint: pathlib.Path, targets: list[str]) -> list[str]:
    """Linear layers of the checkpoint whose name ends with one of `targets`."""
    names = [n.removesuffix(".weight") for n in read_tensors(checkpoint) if n.endswith(".weight")]
    return sorted(n for n in names if n.rsplit(".", 1)[-1] in targets)


class Adapter:
    """`parts`: name of a linear layer -> (A [r, in], B [out, r], scale), float64; `magnitudes` (use_dora):
    name -> [out]."""

    suffix = ""  # of the names of magnitudes

    def __init__(self, checkpoint: pathlib.Path, targets: list[str], seed: int, *, rank: int = 4,
                 alpha: float = 8, dtype: str = "F32", rslora: bool = False, strength: float = 0.6,
                 rank_pattern: dict[str, int] | None = None, alpha_pattern: dict[str, float] | None = None,
                 layers: list[int] | None = None, **config) -> None:
        self.checkpoint, self.dtype = checkpoint, dtype
        self.config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "random/model",
                       "r": rank, "lora_alpha": alpha, "lora_dropout": 0.05, "bias": "none",
                       "use_rslora": rslora, "use_dora": False, "target_modules": targets,
                       "rank_pattern": rank_pattern or {}, "alpha_pattern": alpha_pattern or {},
                       "layers_to_transform": layers, "layers_pattern": None, "modules_to_save": None,
                       "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
                       "loftq_config": {}, "megatron_config": None, "megatron_core": "megatron.core",
                       "auto_mapping": None, "revision": None, "peft_version": "0.17.1", **config}
        shapes = {n: t[1] for n, t in read_tensors(checkpoint).items()}
        rng = np.random.default_rng(seed)
        self.parts = {}
        for name in part_names(checkpoint, targets):
            layer = re.search(r"layers\.(\d+)\.", name)
            if layers is not None and int(layer.group(1)) not in layers:
                continue
            r = next((v for k, v in (rank_pattern or {}).items() if re.match(rf"(.*\.)?({k})$", name)), rank)
            a_value = next((v for k, v in (alpha_pattern or {}).items()
                            if re.match(rf"(.*\.)?({k})$", name)), alpha)
            out, inner = shapes[name + ".weight"]
            scale = a_value / (r ** 0.5 if rslora else r)
            a = self.stored(rng.normal(size=(r, inner)) * inner**-0.5)
            b = self.stored(rng.normal(size=(out, r)) * strength / (scale * r**0.5))
            self.parts[name] = (a, b, scale)
        self.magnitudes = {}
        if config.get("use_dora"):
            # As training leaves them: lengths of the rows of the weights, somewhat changed.
            for name, (_, b, _) in self.parts.items():
                rows = to_f64(*read_tensors(checkpoint)[name + ".weight"])
                lengths = np.linalg.norm(rows, axis=1)
                self.magnitudes[name] = self.stored(lengths * rng.uniform(0.6, 1.4, size=lengths.shape))

    def stored(self, values):
        """Rounded (BF16: cut off) to what the file holds."""
        if self.dtype == "BF16":
            bits = values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
            return bits.view(np.float32).astype(np.float64)
        return values.astype({"F32": np.float32, "F16": np.float16}[self.dtype]).astype(np.float64)

    def raw(self, values):
        if self.dtype == "BF16":
            return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return values.astype({"F32": np.float32, "F16": np.float16}[self.dtype])

    def tensors(self) -> dict:
        out = {}
        for name, (a, b, _) in self.parts.items():
            out[f"base_model.model.{name}.lora_A.weight"] = (self.dtype, self.raw(a))
            out[f"base_model.model.{name}.lora_B.weight"] = (self.dtype, self.raw(b))
        for name, lengths in self.magnitudes.items():
            out[f"base_model.model.{name}.lora_magnitude_vector{self.suffix}"] = (self.dtype, self.raw(lengths))
        return out

    def write(self, directory: pathlib.Path, tensors: dict | None = None) -> pathlib.Path:
        directory.mkdir(parents=True)
        (directory / "adapter_config.json").write_text(json.dumps(self.config, indent=2))
        (directory / "README.md").write_text("# an adapter\n")
        write_safetensors(directory / "adapter_model.safetensors", self.tensors() if tensors is None else tensors)
        return directory

    def deltas(self) -> dict:
        return {name: scale * b @ a for name, (a, b, scale) in self.parts.items()}

    def changed(self, name: str, values, stored):
        """The weight `name` [out, in] with the change, float64; `stored`: as the checkpoint has it, where other
        adapters changed `values`."""
        delta = self.deltas().get(name)
        if delta is None:
            return values
        if name not in self.magnitudes:
            return values + delta
        lengths = np.linalg.norm(stored + delta, axis=1)
        return (self.magnitudes[name] / lengths)[:, None] * (values + delta)


def merge(checkpoint: pathlib.Path, out: pathlib.Path, *adapters: Adapter) -> pathlib.Path:
    """The checkpoint with the changes of all adapters added, in F32."""
    out.mkdir(parents=True)
    tensors = {}
    for name, (dtype, shape, blob) in read_tensors(checkpoint).items():
        stored = values = to_f64(dtype, shape, blob)
        for adapter in adapters:
            values = adapter.changed(name.removesuffix(".weight"), values, stored)
        tensors[name] = ("F32", values.astype(np.float32))
    write_safetensors(out / "model.safetensors", tensors)
    shutil.copy(checkpoint / "config.json", out / "config.json")
    return out


class Stacks(Adapter):
    """Changes all routed experts by pairs for whole layers: as PEFT's target_parameters writes them
    ("peft"; "peft-0.17" with inputs and outputs exchanged), or with what experts share in a leading 1
    ("shared-outer"). `experts`: parameter name -> (A [E, r, in], B [E, out, r], scale)."""

    def __init__(self, checkpoint: pathlib.Path, layout: str, seed: int, *, rank: int = 3, alpha: float = 6,
                 dtype: str = "F32", nested: str = "gate_up_proj", module: str = "mlp.experts",
                 transposed: bool = False, strength: float = 0.6) -> None:
        super().__init__(checkpoint, [], seed, rank=rank, alpha=alpha, dtype=dtype)
        self.layout, self.nested, self.transposed = layout, nested, transposed
        self.config |= {"target_modules": None, "lora_dropout": 0.0,
                        "peft_version": "0.17.1" if layout == "peft-0.17" else "0.19.1"}
        if layout != "shared-outer":
            self.config["target_parameters"] = [f"{module}.gate_up_proj", f"{module}.down_proj"]
        config = json.loads((checkpoint / "config.json").read_text())
        hidden = config["hidden_size"]
        width = config.get("moe_intermediate_size", config["intermediate_size"])
        count = next(config[k] for k in ("num_local_experts", "num_experts", "n_routed_experts") if k in config)
        self.names = set(read_tensors(checkpoint))
        layers = sorted({int(m.group(1)) for n in self.names
                         if (m := re.match(r"model\.layers\.(\d+)\..*\.experts\.", n))})
        rng = np.random.default_rng(seed)
        self.experts, scale = {}, alpha / rank
        for layer in layers:
            for name, inner, out in (("gate_up_proj", hidden, 2 * width), ("down_proj", width, hidden)):
                a = rng.normal(size=(count, rank, inner)) * inner**-0.5
                b = rng.normal(size=(count, out, rank)) * strength / (scale * rank**0.5)
                if layout == "shared-outer" and name == "gate_up_proj":
                    a[:] = a[:1]
                if layout == "shared-outer" and name == "down_proj":
                    b[:] = b[:1]
                key = f"model.layers.{layer}.{module}.{name}"
                self.experts[key] = (self.stored(a), self.stored(b), scale)

    def tensors(self) -> dict:
        out = {}
        for name, (a, b, _) in self.experts.items():
            module, last = name.rsplit(".", 1)
            if self.layout == "shared-outer":
                at = name
                a, b = (a[:1], b) if last == "gate_up_proj" else (a, b[:1])
            else:
                at = module + (".base_layer" if last == self.nested else "")
                if self.layout == "peft-0.17":
                    a, b = b.transpose(0, 2, 1), a.transpose(0, 2, 1)
                count, rank, inner = a.shape
                a, b = a.reshape(count * rank, inner), b.transpose(1, 2, 0).reshape(b.shape[1], -1)
            out[f"base_model.model.{at}.lora_A.weight"] = (self.dtype, self.raw(a))
            out[f"base_model.model.{at}.lora_B.weight"] = (self.dtype, self.raw(b))
        return out

    def deltas(self) -> dict:
        out = {}
        for name, (a, b, scale) in self.experts.items():
            delta = scale * b @ a  # [E, out, in]
            module, last = name.rsplit(".", 1)
            if name in self.names:
                out[name] = delta.transpose(0, 2, 1) if self.transposed else delta
                continue
            for e, one in enumerate(delta):
                if last == "down_proj":
                    out[f"{module}.{e}.down_proj"] = one
                else:
                    out[f"{module}.{e}.gate_proj"], out[f"{module}.{e}.up_proj"] = np.split(one, 2)
        return out
