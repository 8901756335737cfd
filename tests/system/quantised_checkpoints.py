"""Small quantised Hugging Face checkpoints and the numbers that they mean: written from the public
descriptions of the formats, with NumPy, and sharing nothing with Chimera.

`build(directory, family, scheme, seed)` writes a checkpoint whose matrices are random codes with
random scales, packed as `scheme` packs them, and gives every tensor's numbers in F32.
`plain(directory, family, numbers)` writes the same model with these numbers as F32.
"""
from __future__ import annotations

import json
import pathlib
from typing import Any, Callable

import numpy as np

from random_checkpoint import write_safetensors

HIDDEN, WIDTH, HEADS, KV_HEADS, HEAD_DIM, EXPERTS, LAYERS, VOCAB = 64, 96, 4, 2, 16, 4, 2, 96
LATENT, NOPE, ROPE, VALUE = 32, 16, 8, 16  # deepseek_v3
Tensors = dict[str, tuple[str, np.ndarray]]
FAMILIES = ("qwen3_moe", "mixtral", "llama", "deepseek_v3", "olmoe")


# --- models -------------------------------------------------------------------------------------


def config_of(family: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": family, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
        "hidden_act": "silu", "max_position_embeddings": 64, "intermediate_size": WIDTH,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
    if family == "qwen3_moe":
        config |= {"head_dim": HEAD_DIM, "num_experts": EXPERTS, "num_experts_per_tok": 2,
                   "moe_intermediate_size": WIDTH, "norm_topk_prob": True}
    if family == "mixtral":
        config |= {"num_local_experts": EXPERTS, "num_experts_per_tok": 2}
    if family == "olmoe":
        config |= {"num_experts": EXPERTS, "num_experts_per_tok": 2}
    if family == "deepseek_v3":
        config |= {"n_routed_experts": EXPERTS, "num_experts_per_tok": 2, "n_group": 1,
                   "topk_group": 1, "moe_intermediate_size": WIDTH, "first_k_dense_replace": 1,
                   "n_shared_experts": 1, "q_lora_rank": None, "kv_lora_rank": LATENT,
                   "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE, "v_head_dim": VALUE,
                   "num_key_value_heads": HEADS}
    return config


def shapes_of(family: str) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, ...]]]:
    """Matrices that schemes quantise (names without ".weight"), and tensors that stay plain."""
    matrices: dict[str, tuple[int, int]] = {}
    others: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN), "lm_head.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,)}

    def mlp(at: str, names=("gate_proj", "up_proj", "down_proj")) -> None:
        for name, shape in zip(names, ((WIDTH, HIDDEN), (WIDTH, HIDDEN), (HIDDEN, WIDTH))):
            matrices[at + name] = shape

    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
        for norm in ("input_layernorm", "post_attention_layernorm"):
            others[f"{at}{norm}.weight"] = (HIDDEN,)
        if family == "deepseek_v3":
            matrices[at + "self_attn.q_proj"] = (HEADS * (NOPE + ROPE), HIDDEN)
            matrices[at + "self_attn.kv_a_proj_with_mqa"] = (LATENT + ROPE, HIDDEN)
            matrices[at + "self_attn.kv_b_proj"] = (HEADS * (NOPE + VALUE), LATENT)
            matrices[at + "self_attn.o_proj"] = (HIDDEN, HEADS * VALUE)
            others[at + "self_attn.kv_a_layernorm.weight"] = (LATENT,)
        else:
            heads = KV_HEADS
            for name, rows in (("q", q), ("k", heads * HEAD_DIM), ("v", heads * HEAD_DIM)):
                matrices[f"{at}self_attn.{name}_proj"] = (rows, HIDDEN)
            matrices[at + "self_attn.o_proj"] = (HIDDEN, q)
        if family == "qwen3_moe":
            others |= {f"{at}self_attn.{n}_norm.weight": (HEAD_DIM,) for n in "qk"}
        if family == "olmoe":
            others |= {at + "self_attn.q_norm.weight": (q,), at + "self_attn.k_norm.weight": (kv,)}
        if family == "llama" or (family == "deepseek_v3" and layer == 0):
            mlp(at + "mlp.")
            continue
        block = "block_sparse_moe." if family == "mixtral" else "mlp."
        others[f"{at}{block}gate.weight"] = (EXPERTS, HIDDEN)
        for e in range(EXPERTS):
            mlp(f"{at}{block}experts.{e}.",
                ("w1", "w3", "w2") if family == "mixtral" else ("gate_proj", "up_proj", "down_proj"))
        if family == "deepseek_v3":
            mlp(at + "mlp.shared_experts.")
            others[f"{at}mlp.gate.e_score_correction_bias"] = (EXPERTS,)
    return matrices, others


# --- numbers ------------------------------------------------------------------------------------


def bf16(values: np.ndarray) -> np.ndarray:
    """The bits, cut off."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def widen(dtype: str, stored: np.ndarray) -> np.ndarray:
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        return E4M3[stored]
    return stored.astype(np.float32)


def stored(dtype: str, values: np.ndarray) -> np.ndarray:
    if dtype == "BF16":
        return bf16(values)
    return values.astype({"F16": np.float16, "F32": np.float32}[dtype])


def _e4m3() -> np.ndarray:
    out = np.empty(256, np.float32)
    for code in range(256):
        exponent, mantissa = code >> 3 & 15, code & 7
        value = mantissa * 2.0**-9 if exponent == 0 else (1 + mantissa / 8) * 2.0**(exponent - 7)
        out[code] = -value if code & 128 else value
    out[[0x7f, 0xff]] = np.nan
    return out


E4M3 = _e4m3()
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def pack(codes: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """Codes along `axis` into words of 32 bits, the first in the lowest bits; padded with zeros."""
    moved = np.moveaxis(codes.astype(np.uint32), axis, -1)
    per_word = 32 // bits
    pad = -moved.shape[-1] % per_word
    moved = np.concatenate([moved, np.zeros((*moved.shape[:-1], pad), np.uint32)], axis=-1)
    words = moved.reshape(*moved.shape[:-1], -1, per_word)
    shifts = (np.arange(per_word) * bits).astype(np.uint32)
    packed = np.bitwise_or.reduce(words << shifts, axis=-1)
    return np.ascontiguousarray(np.moveaxis(packed, -1, axis)).astype(np.uint32).view(np.int32)


def bit_stream(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes of a row one after another in the bits of little-endian words."""
    all_bits = (codes[..., None] >> np.arange(bits)) & 1
    flat = all_bits.reshape(*codes.shape[:-1], -1).astype(np.uint8)
    return np.packbits(flat, axis=-1, bitorder="little").view("<u4")


class Matrix:
    """Random codes and scales of one matrix [n, k], for a scheme to pack."""

    def __init__(self, rng: np.random.Generator, n: int, k: int) -> None:
        self.rng, self.n, self.k = rng, n, k

    def scales(self, shape: tuple[int, ...], dtype: str, largest: float) -> np.ndarray:
        """Such that codes up to `largest` give weights of about 1.5 / sqrt(k)."""
        values = self.rng.uniform(0.5, 1.5, size=shape) * 2.5 * self.k**-0.5 / largest
        return stored(dtype, values.astype(np.float32))

    def codes(self, below: int) -> np.ndarray:
        return self.rng.integers(0, below, size=(self.n, self.k))

    def fp8(self) -> np.ndarray:
        codes = self.rng.integers(0, 256, size=(self.n, self.k)).astype(np.uint8)
        codes[(codes & 0x7f) == 0x7f] = 0x30
        return codes

    def groups(self, size: int) -> int:
        return 1 if size < 0 else -(-self.k // size)

    def order(self, size: int, shuffled: bool) -> np.ndarray:
        """The group of every input."""
        plain = np.zeros(self.k, np.int32) if size < 0 else np.arange(self.k, dtype=np.int32) // size
        return self.rng.permutation(plain).astype(np.int32) if shuffled else plain


# --- schemes ------------------------------------------------------------------------------------

Packed = tuple[Tensors, np.ndarray]  # by tail; the numbers [n, k]


def spread(scales: np.ndarray, rows: int, cols: int, n: int, k: int) -> np.ndarray:
    """A scale per block as one per element."""
    return np.repeat(np.repeat(scales, rows, axis=0), cols, axis=1)[:n, :k]


def fp8_block(rows: int, cols: int, dtype: str, tail: str = "weight_scale_inv"):
    def make(m: Matrix) -> Packed:
        codes = m.fp8()
        shape = (-(-m.n // rows), -(-m.k // cols))
        scales = m.scales(shape, dtype, 100)
        numbers = E4M3[codes] * spread(widen(dtype, scales), rows, cols, m.n, m.k)
        return {"weight": ("F8_E4M3", codes), tail: (dtype, scales)}, numbers
    return make


def fp8_matrix(dtype: str, shape: tuple[int, ...], extra: bool):
    def make(m: Matrix) -> Packed:
        codes, scale = m.fp8(), m.scales(shape, dtype, 100)
        parts: Tensors = {"weight": ("F8_E4M3", codes), "weight_scale": (dtype, scale)}
        if extra:
            parts["input_scale"] = ("F32", np.ones(shape, np.float32))
        return parts, E4M3[codes] * widen(dtype, scale).reshape(1, 1)
    return make


def fp8_channel(dtype: str):
    def make(m: Matrix) -> Packed:
        codes, scales = m.fp8(), m.scales((m.n, 1), dtype, 100)
        return ({"weight": ("F8_E4M3", codes), "weight_scale": (dtype, scales)},
                E4M3[codes] * widen(dtype, scales))
    return make


def whole_int8(dtype: str, symmetric: bool = True):
    def make(m: Matrix) -> Packed:
        codes = (m.codes(256) - 128).astype(np.int8)
        scales = m.scales((m.n, 1), dtype, 100)
        parts: Tensors = {"weight": ("I8", codes), "weight_scale": (dtype, scales)}
        zero = np.zeros((m.n, 1), np.int8)
        if not symmetric:
            zero = m.rng.integers(-9, 10, size=(m.n, 1)).astype(np.int8)
            parts["weight_zero_point"] = ("I8", zero)
        numbers = (codes.astype(np.int32) - zero).astype(np.float32) * widen(dtype, scales)
        return parts, numbers
    return make


def packed_int(bits: int, group: int, symmetric: bool, dtype: str = "BF16", shuffled: bool = False,
               plain_zeros: bool = False):
    """compressed-tensors pack-quantized."""
    def make(m: Matrix) -> Packed:
        middle = 1 << (bits - 1)
        codes, order = m.codes(1 << bits), m.order(group, shuffled)
        scales = m.scales((m.n, m.groups(group)), dtype, middle)
        parts: Tensors = {"weight_packed": ("I32", pack(codes, bits, 1)),
                          "weight_scale": (dtype, scales),
                          "weight_shape": ("I64", np.array([m.n, m.k], np.int64))}
        zeros = np.full(scales.shape, middle)
        if not symmetric:
            zeros = m.rng.integers(0, 1 << bits, size=scales.shape)
            parts["weight_zero_point"] = (("I8", (zeros - middle).astype(np.int8)) if plain_zeros
                                          else ("I32", pack(zeros, bits, 0)))
        if shuffled:
            parts["weight_g_idx"] = ("I32", order)
        numbers = (codes - zeros[:, order]).astype(np.float32) * widen(dtype, scales)[:, order]
        return parts, numbers
    return make


def gptq(bits: int, group: int, symmetric: bool, version: int = 1, shuffled: bool = False,
         dtype: str = "F16"):
    def make(m: Matrix) -> Packed:
        codes, order = m.codes(1 << bits), m.order(group, shuffled)
        scales = m.scales((m.groups(group), m.n), dtype, 1 << (bits - 1))
        zeros = np.full(scales.shape, 1 << (bits - 1))
        if not symmetric:
            zeros = m.rng.integers(1, 1 << bits, size=scales.shape)
        parts: Tensors = {"qweight": ("I32", pack(codes.T, bits, 0)),
                          "qzeros": ("I32", pack(zeros - (1 if version == 1 else 0), bits, 1)),
                          "scales": (dtype, scales), "g_idx": ("I32", order)}
        numbers = (codes - zeros[order].T).astype(np.float32) * widen(dtype, scales)[order].T
        return parts, np.ascontiguousarray(numbers)
    return make


AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # which of eight outputs stands in the i-th four bits


def awq(group: int):
    def packed(values: np.ndarray) -> np.ndarray:
        return pack(values.reshape(len(values), -1, 8)[:, :, AWQ_ORDER].reshape(len(values), -1), 4, 1)

    def make(m: Matrix) -> Packed:
        codes, order = m.codes(16), m.order(group, False)
        scales = m.scales((m.groups(group), m.n), "F16", 8)
        zeros = m.rng.integers(0, 16, size=scales.shape)
        parts: Tensors = {"qweight": ("I32", packed(codes.T)), "qzeros": ("I32", packed(zeros)),
                          "scales": ("F16", scales)}
        numbers = (codes - zeros[order].T).astype(np.float32) * widen("F16", scales)[order].T
        return parts, np.ascontiguousarray(numbers)
    return make


def nvfp4(codes_tail: str, global_tail: str, divides: bool, extra: str):
    def make(m: Matrix) -> Packed:
        codes = m.codes(16)
        own = m.rng.integers(0x30, 0x60, size=(m.n, m.k // 16)).astype(np.uint8)
        wanted = np.float32(0.4 * m.k**-0.5 / 10)
        unit = np.array([1 / wanted if divides else wanted], np.float32)
        scales = E4M3[own] / unit if divides else E4M3[own] * unit
        numbers = E2M1[codes] * np.repeat(scales.astype(np.float32), 16, axis=1)
        pairs = (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)
        return {codes_tail: ("U8", pairs), "weight_scale": ("F8_E4M3", own),
                global_tail: ("F32", unit if divides else unit.reshape(())),
                extra: ("F32", np.ones(1, np.float32))}, numbers
    return make


def mlx(bits: int, group: int, dtype: str = "BF16"):
    def make(m: Matrix) -> Packed:
        codes, order = m.codes(1 << bits), m.order(group, False)
        scales = m.scales((m.n, m.groups(group)), dtype, 1 << (bits - 1))
        middle = widen(dtype, scales) * np.float32(-(1 << bits) / 2)
        biases = stored(dtype, middle * m.rng.uniform(0.8, 1.2, size=scales.shape).astype(np.float32))
        numbers = (codes.astype(np.float32) * widen(dtype, scales)[:, order]
                   + widen(dtype, biases)[:, order])
        return {"weight": ("U32", bit_stream(codes, bits)), "scales": (dtype, scales),
                "biases": (dtype, biases)}, numbers
    return make


def compressed(form: str, weights: dict[str, Any], activations: dict | None = None) -> dict:
    return {"quantization_config": {
        "quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
        "config_groups": {"group_0": {
            "targets": ["Linear"], "input_activations": activations, "output_activations": None,
            "weights": {"actorder": None, "block_structure": None, "dynamic": False,
                        "group_size": None, "observer": "minmax", "observer_kwargs": {},
                        "symmetric": True} | weights}},
        "ignore": ["lm_head"], "kv_cache_scheme": None, "global_compression_ratio": 1.5}}


def fp8(**more: Any) -> dict:
    return {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
                                    "activation_scheme": "dynamic", **more}}


def gptq_config(bits: int, group: int, sym: bool, **more: Any) -> dict:
    return {"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": group,
                                    "sym": sym, "desc_act": False, "damp_percent": 0.01,
                                    "true_sequential": True, **more}}


def integer(bits: int, group: int, symmetric: bool = True, **more: Any) -> dict:
    return {"num_bits": bits, "type": "int", "symmetric": symmetric,
            "strategy": "channel" if group < 0 else "group",
            "group_size": None if group < 0 else group} | more


FLOAT8 = {"num_bits": 8, "type": "float"}
TOKEN = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}

# name: (what config.json says, how a matrix is packed)
SCHEMES: dict[str, tuple[dict, Callable[[Matrix], Packed]]] = {
    "fp8-blocks": (fp8(weight_block_size=[128, 128]), fp8_block(128, 128, "F32")),
    "fp8-small-blocks": (fp8(weight_block_size=[32, 48], modules_to_not_convert=["lm_head"]),
                         fp8_block(32, 48, "BF16")),
    "fp8-matrix": (fp8(activation_scheme="static"), fp8_matrix("F32", (), True)),
    "ct-fp8-channel": (compressed("float-quantized", FLOAT8 | {"strategy": "channel"}, TOKEN),
                       fp8_channel("BF16")),
    "ct-fp8-tensor": (compressed("float-quantized", FLOAT8 | {"strategy": "tensor"}, TOKEN),
                      fp8_matrix("BF16", (1,), True)),
    "ct-fp8-block": (compressed("float-quantized", FLOAT8 | {"strategy": "block",
                                                             "block_structure": [128, 128]}, TOKEN),
                     fp8_block(128, 128, "BF16", "weight_scale")),
    "ct-int8": (compressed("int-quantized", integer(8, -1), {"num_bits": 8, "type": "int"}),
                whole_int8("F32")),
    "ct-int8-zeros": (compressed("naive-quantized", integer(8, -1, False)),
                      whole_int8("BF16", False)),
    "ct-w4": (compressed("pack-quantized", integer(4, 32)), packed_int(4, 32, True)),
    "ct-w4-wide-scales": (compressed("pack-quantized", integer(4, 64)),
                          packed_int(4, 64, True, "F32")),
    "ct-w4-zeros": (compressed("pack-quantized", integer(4, 32, False)), packed_int(4, 32, False)),
    "ct-w4-plain-zeros": (compressed("pack-quantized", integer(4, 32, False)),
                          packed_int(4, 32, False, "F16", plain_zeros=True)),
    "ct-w4-channel": (compressed("pack-quantized", integer(4, -1)), packed_int(4, -1, True)),
    "ct-w4-small-groups": (compressed("pack-quantized", integer(4, 16)), packed_int(4, 16, True)),
    "ct-w4-order": (compressed("pack-quantized", integer(4, 32, actorder="group")),
                    packed_int(4, 32, True, shuffled=True)),
    "ct-w8": (compressed("pack-quantized", integer(8, 32)), packed_int(8, 32, True)),
    "ct-w8-channel-zeros": (compressed("pack-quantized", integer(8, -1, False)),
                            packed_int(8, -1, False)),
    "ct-nvfp4": (compressed("nvfp4-pack-quantized", {"num_bits": 4, "type": "float",
                                                     "strategy": "tensor_group", "group_size": 16}),
                 nvfp4("weight_packed", "weight_global_scale", True, "input_global_scale")),
    "gptq-4": (gptq_config(4, 32, True), gptq(4, 32, True)),
    "gptq-4-zeros": (gptq_config(4, 64, False), gptq(4, 64, False)),
    "gptq-4-whole": (gptq_config(4, -1, True), gptq(4, -1, True)),
    "gptq-4-order": (gptq_config(4, 32, True, desc_act=True), gptq(4, 32, True, shuffled=True)),
    "gptq-8": (gptq_config(8, 32, True), gptq(8, 32, True)),
    "gptq-8-v2-zeros": (gptq_config(8, 32, False, checkpoint_format="gptq_v2"),
                        gptq(8, 32, False, 2)),
    "awq": ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32,
                                     "version": "gemm", "zero_point": True,
                                     "modules_to_not_convert": ["gate"]}}, awq(32)),
    "modelopt-fp8": ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}},
                     fp8_matrix("F32", (), True)),
    "modelopt-nvfp4": ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4",
                                                "group_size": 16, "exclude_modules": ["lm_head"]}},
                       nvfp4("weight", "weight_scale_2", False, "input_scale")),
}
for _bits in (2, 3, 4, 6, 8):
    SCHEMES[f"mlx-{_bits}"] = ({"quantization": {"bits": _bits, "group_size": 32}}, mlx(_bits, 32))


# --- checkpoints --------------------------------------------------------------------------------


def mlx_stacks(tensors: Tensors, family: str) -> Tensors:
    """Experts one by one as mlx-lm stacks them."""
    out: Tensors = {}
    for name, (dtype, array) in tensors.items():
        if ".experts.0." not in name:
            if ".experts." not in name:
                out[name] = (dtype, array)
            continue
        stacked = np.stack([tensors[name.replace(".experts.0.", f".experts.{e}.")][1]
                            for e in range(EXPERTS)])
        target = name.replace(".experts.0.", ".switch_mlp.")
        if family == "mixtral":
            for ours, theirs in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
                target = target.replace(f".{ours}.", f".{theirs}.")
        out[target] = (dtype, stacked)
    return out


def build(directory: pathlib.Path, family: str, scheme: str, seed: int = 0) -> dict[str, np.ndarray]:
    said, make = SCHEMES[scheme]
    rng = np.random.default_rng([FAMILIES.index(family), list(SCHEMES).index(scheme), seed])
    matrices, others = shapes_of(family)
    config = config_of(family) | json.loads(json.dumps(said))
    tensors: Tensors = {}
    numbers: dict[str, np.ndarray] = {}
    on_mlx = scheme.startswith("mlx")
    for stem, (n, k) in matrices.items():
        parts, values = make(Matrix(rng, n, k))
        tensors |= {f"{stem}.{tail}": part for tail, part in parts.items()}
        numbers[stem + ".weight"] = np.asarray(values, np.float32)
    for name, shape in others.items():
        is_gate = name.endswith(".gate.weight")
        if on_mlx and (is_gate or name == "model.embed_tokens.weight"):  # these as well
            stem = name.removesuffix(".weight")
            parts, values = (mlx(8, 64) if is_gate else make)(Matrix(rng, *shape))
            if is_gate:
                config["quantization"][stem] = {"bits": 8, "group_size": 64}
            tensors |= {f"{stem}.{tail}": part for tail, part in parts.items()}
            numbers[name] = np.asarray(values, np.float32)
            continue
        spread_of = 1.0 if len(shape) == 2 and "embed" in name else 0.3
        centre = 1.0 if name.endswith("norm.weight") else 0.0
        values = stored("BF16", (centre + rng.normal(size=shape) * spread_of).astype(np.float32))
        tensors[name] = ("BF16", values)
        numbers[name] = widen("BF16", values)
    if on_mlx:
        tensors = mlx_stacks(tensors, family)
        config["quantization_config"] = config["quantization"]
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", tensors)
    return numbers


def plain(directory: pathlib.Path, family: str, numbers: dict[str, np.ndarray]) -> pathlib.Path:
    """Matrices that were quantised as F32, the others as BF16, as they were."""
    matrices, _ = shapes_of(family)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config_of(family)))
    tensors: Tensors = {}
    for name, values in numbers.items():
        narrow = bf16(values)
        is_matrix = name.removesuffix(".weight") in matrices
        exact = not is_matrix and np.array_equal(widen("BF16", narrow), values)
        tensors[name] = ("BF16", narrow) if exact else ("F32", values)
    write_safetensors(directory / "model.safetensors", tensors)
    return directory
