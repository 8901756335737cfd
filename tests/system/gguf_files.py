"""GGUF files of small models, and what their blocks mean: written from the public description of the
format, with NumPy, and sharing nothing with Chimera.

`convert(checkpoint, path, block)` writes a Hugging Face directory as GGUF, the way converters do it:
names, fused stacks of experts, the order of q and k of the architecture "llama", k_b and v_b of
"deepseek2". `quantise(values, type)` gives blocks, `dequantise(blocks, type, shape)` their numbers.
`samples()` are files that are broken in one way each.
"""
from __future__ import annotations

import json
import pathlib
import struct
from typing import Any

import numpy as np

# name: (number, elements, bytes)
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20),
         "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q2_K": (10, 256, 84),
         "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176),
         "Q6_K": (14, 256, 210), "IQ4_NL": (20, 32, 18), "BF16": (30, 1, 2), "MXFP4": (39, 32, 17)}
BLOCKS = tuple(name for name, (_, elements, _) in TYPES.items() if elements > 1)
IQ4_NL = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


# --- numbers ------------------------------------------------------------------------------------


def half(block: np.ndarray, at: int) -> np.ndarray:
    """The half-precision number at byte `at` of every block, [n, 1] in double."""
    return np.ascontiguousarray(block[:, at:at + 2]).view("<f2").astype(np.float64)


def nibbles(codes: np.ndarray) -> np.ndarray:
    """[n, 16] bytes to [n, 32] codes: low halves, then high ones."""
    return np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.int64)


def bits(data: np.ndarray) -> np.ndarray:
    """[n, k] bytes to [n, 8 k] bits, the lowest first."""
    return np.unpackbits(data, axis=1, bitorder="little").astype(np.int64)


def six_bit_pairs(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eight scales and eight minima of 6 bits in 12 bytes."""
    s = s.astype(np.int64)
    scale, least = np.empty((len(s), 8), np.int64), np.empty((len(s), 8), np.int64)
    for j in range(4):
        scale[:, j], least[:, j] = s[:, j] & 63, s[:, j + 4] & 63
        scale[:, j + 4] = (s[:, j + 8] & 15) | ((s[:, j] >> 6) << 4)
        least[:, j + 4] = (s[:, j + 8] >> 4) | ((s[:, j + 4] >> 6) << 4)
    return scale, least


def dequantise(data: bytes | np.ndarray, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in F32: the exact values, rounded once."""
    _, elements, size = TYPES[kind]
    raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    if kind == "F32":
        return raw.view("<f4").reshape(shape)
    if kind == "F16":
        return raw.view("<f2").astype(np.float32).reshape(shape)
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    b = raw.reshape(-1, size)
    if kind == "Q4_0":
        out = half(b, 0) * (nibbles(b[:, 2:]) - 8)
    elif kind == "Q4_1":
        out = half(b, 0) * nibbles(b[:, 4:]) + half(b, 2)
    elif kind == "Q5_0":
        out = half(b, 0) * ((nibbles(b[:, 6:]) | bits(b[:, 2:6]) << 4) - 16)
    elif kind == "Q5_1":
        out = half(b, 0) * (nibbles(b[:, 8:]) | bits(b[:, 4:8]) << 4) + half(b, 2)
    elif kind == "Q8_0":
        out = half(b, 0) * b[:, 2:].view(np.int8)
    elif kind == "IQ4_NL":
        out = half(b, 0) * IQ4_NL[nibbles(b[:, 2:])]
    elif kind == "MXFP4":
        out = np.ldexp(E2M1[nibbles(b[:, 1:])], b[:, :1].astype(np.int64) - 127)
    elif kind == "Q2_K":
        scales, low = b[:, :16].astype(np.int64), b[:, 16:80].astype(np.int64)
        codes = two_bits(low)
        out = ((half(b, 80) * (scales & 15))[:, :, None] * codes.reshape(-1, 16, 16)
               - (half(b, 82) * (scales >> 4))[:, :, None])
    elif kind == "Q3_K":
        s = b[:, 96:108].astype(np.int64)
        low = np.concatenate([s[:, :8] & 15, s[:, :8] >> 4], axis=1)
        top = np.concatenate([(s[:, 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1)
        high = np.stack([(b[:, :32] >> bit) & 1 for bit in range(8)], axis=1).reshape(-1, 256)
        codes = two_bits(b[:, 32:96].astype(np.int64)) - 4 * (1 - high.astype(np.int64))
        out = (half(b, 108) * ((low | top << 4) - 32))[:, :, None] * codes.reshape(-1, 16, 16)
    elif kind in ("Q4_K", "Q5_K"):
        scale, least = six_bit_pairs(b[:, 4:16])
        codes_at = 16 if kind == "Q4_K" else 48
        q = b[:, codes_at:].astype(np.int64).reshape(-1, 4, 32)
        codes = np.stack([q & 15, q >> 4], axis=2).reshape(-1, 8, 32)
        if kind == "Q5_K":
            high = np.stack([(b[:, 16:48] >> bit) & 1 for bit in range(8)], axis=1)
            codes = codes | high.astype(np.int64) << 4
        out = ((half(b, 0) * scale)[:, :, None] * codes - (half(b, 2) * least)[:, :, None])
    elif kind == "Q6_K":
        low, high = b[:, :128].astype(np.int64), b[:, 128:192].astype(np.int64)
        parts = []
        for n in range(2):  # of 128 elements
            a, c, h = low[:, n * 64:n * 64 + 32], low[:, n * 64 + 32:n * 64 + 64], high[:, n * 32:n * 32 + 32]
            parts += [a & 15 | (h & 3) << 4, c & 15 | (h >> 2 & 3) << 4, a >> 4 | (h >> 4 & 3) << 4,
                      c >> 4 | (h >> 6 & 3) << 4]
        codes = np.concatenate(parts, axis=1) - 32
        scale = b[:, 192:208].view(np.int8).astype(np.int64)
        out = (half(b, 208) * scale)[:, :, None] * codes.reshape(-1, 16, 16)
    else:
        raise ValueError(kind)
    return out.astype(np.float32).reshape(shape)


def two_bits(low: np.ndarray) -> np.ndarray:
    """64 bytes to 256 codes: per half of 32 bytes its lowest pairs of bits, then the next."""
    halves = low.reshape(-1, 2, 32)
    return np.stack([(halves >> shift) & 3 for shift in (0, 2, 4, 6)], axis=2).reshape(-1, 256)


def random_blocks(kind: str, elements: int, rng: np.random.Generator) -> bytes:
    """Blocks of any codes whose scales are those of weights."""
    _, per_block, size = TYPES[kind]
    n = elements // per_block
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0],
              "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
    for at in halves.get(kind, []):
        scale = (rng.normal(size=n) * 2.0**-9).astype("<f2")
        blocks[:, at:at + 2] = scale.view(np.uint8).reshape(n, 2)
    if kind == "MXFP4":
        blocks[:, 0] = rng.integers(118, 126, n)
    return blocks.tobytes()


def quantise(values: np.ndarray, kind: str) -> bytes:
    """The simple types; every number to the nearest code."""
    v = np.ascontiguousarray(values, dtype=np.float32)
    if kind == "F32":
        return v.astype("<f4").tobytes()
    if kind == "F16":
        return v.astype("<f2").tobytes()
    if kind == "BF16":
        u = v.view(np.uint32)
        return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype("<u2").tobytes()
    x = v.reshape(-1, 32)
    extreme = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], 1)
    if kind == "Q8_0":
        d = (np.abs(extreme) / 127).astype("<f2")
        scale = np.where(d == 0, 1, d.astype(np.float32))
        q = np.clip(np.rint(x / scale), -127, 127).astype(np.int8)
        return np.concatenate([d.view(np.uint8), q.view(np.uint8)], axis=1).tobytes()
    if kind == "Q4_0":
        d = (extreme / -8).astype("<f2")
        scale = np.where(d == 0, 1, d.astype(np.float32))
        q = (np.clip(np.rint(x / scale), -8, 7) + 8).astype(np.uint8)
        return np.concatenate([d.view(np.uint8), q[:, :16] | q[:, 16:] << 4], axis=1).tobytes()
    raise ValueError(kind)


# --- the container ------------------------------------------------------------------------------


class Value:
    """A metadata value of a stated type, where Python's does not say it."""

    def __init__(self, kind: int, value: Any) -> None:
        self.kind, self.value = kind, value


U8, I8, U16, I16, U32, I32, FLOAT, BOOL, TEXT, LIST, U64, I64, DOUBLE = range(13)
PACK = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?",
        U64: "<Q", I64: "<q", DOUBLE: "<d"}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def kind_of(value: Any) -> int:
    if isinstance(value, Value):
        return value.kind
    return BOOL if isinstance(value, bool) else U32 if isinstance(value, int) else \
        FLOAT if isinstance(value, float) else TEXT if isinstance(value, str) else LIST


def pack(value: Any) -> bytes:
    kind = kind_of(value)
    if isinstance(value, Value):
        value = value.value
    if kind == TEXT:
        return text(value)
    if kind == LIST:
        inner = kind_of(value[0]) if len(value) else U32
        inner = I32 if inner == U32 else inner
        return struct.pack("<IQ", inner, len(value)) + b"".join(
            pack(v if inner in (TEXT, BOOL, FLOAT) else Value(inner, v)) for v in value)
    return struct.pack(PACK[kind], value)


def container(metadata: dict[str, Any], tensors: list[tuple[str, tuple[int, ...], str, bytes]],
              alignment: int = 32, version: int = 3) -> bytes:
    """tensors: name, shape outermost first, type, bytes."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += text(key) + struct.pack("<I", kind_of(value)) + pack(value)
    at = 0
    for name, shape, kind, blob in tensors:
        out += text(name) + struct.pack("<I", len(shape))
        out += b"".join(struct.pack("<Q", d) for d in reversed(shape))
        out += struct.pack("<IQ", TYPES[kind][0], at)
        at += len(blob) + -len(blob) % alignment
    out += b"\0" * (-len(out) % alignment)
    for _, _, _, blob in tensors:
        out += blob + b"\0" * (-len(blob) % alignment)
    return out


# --- models -------------------------------------------------------------------------------------


def read_checkpoint(directory: pathlib.Path) -> tuple[dict, dict[str, np.ndarray]]:
    """config.json and all tensors as F32."""
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(directory.glob("model*.safetensors")):
        raw = path.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        for name, entry in json.loads(raw[8:8 + size]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + o for o in entry["data_offsets"])
            tensors[name] = dequantise(np.frombuffer(raw, np.uint8, end - begin, begin),
                                       entry["dtype"], tuple(entry["shape"]))
    return json.loads((directory / "config.json").read_text()), tensors


ARCHITECTURES = {"olmoe": "olmoe", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe", "qwen3": "qwen3",
                 "llama": "llama", "mixtral": "llama", "deepseek_v3": "deepseek2",
                 "deepseek_v2": "deepseek2",
                 "llama4_text": "llama4", "gpt_oss": "gpt-oss"}
NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "self_attn.q_a_proj": "attn_q_a", "self_attn.q_b_proj": "attn_q_b",
         "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
         "self_attn.kv_a_layernorm": "attn_kv_a_norm", "mlp.gate": "ffn_gate_inp",
         "mlp.router": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp",
         "feed_forward.router": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp"}
PROJECTIONS = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down", "w1": "gate", "w3": "up",
               "w2": "down"}


def permuted(w: np.ndarray, heads: int) -> np.ndarray:
    """Rows (i, i + half) of every head side by side."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def llama3_factors(rope: dict, theta: float, dim: int) -> np.ndarray:
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    out = []
    for i in range(dim // 2):
        wave = 2 * np.pi * theta ** (2 * i / dim)
        smooth = (original / wave - low) / (high - low) if high != low else 0
        out.append(1 if wave < original / high else factor if wave > original / low
                   else 1 / ((1 - smooth) / factor + smooth))
    return np.array(out, np.float32)


def metadata_of(c: dict) -> dict[str, Any]:
    arch = ARCHITECTURES[c["model_type"]]
    heads = c["num_attention_heads"]
    rope = c.get("rope_scaling") or {}
    theta = float(c.get("rope_theta") or 150000.0)
    m: dict[str, Any] = {
        "embedding_length": c["hidden_size"], "block_count": c["num_hidden_layers"],
        "context_length": c["max_position_embeddings"], "attention.head_count": heads,
        "attention.head_count_kv": c.get("num_key_value_heads") or heads,
        "attention.layer_norm_rms_epsilon": float(c["rms_norm_eps"]), "rope.freq_base": theta}
    if "intermediate_size" in c:
        m["feed_forward_length"] = c["intermediate_size"]
    experts = c.get("num_experts") or c.get("num_local_experts") or c.get("n_routed_experts")
    if experts:
        m |= {"expert_count": experts, "expert_used_count": c["num_experts_per_tok"]}
    if c.get("moe_intermediate_size"):
        m["expert_feed_forward_length"] = c["moe_intermediate_size"]
    if c.get("head_dim"):
        m |= {"attention.key_length": c["head_dim"], "attention.value_length": c["head_dim"]}
    kind = rope.get("rope_type", rope.get("type"))
    if kind in ("linear", "yarn"):
        m |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        m["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        m |= {"rope.scaling.yarn_" + k: float(rope[k]) for k in ("beta_fast", "beta_slow") if k in rope}
    if c.get("clip_qkv"):
        m["attention.clamp_kqv"] = float(c["clip_qkv"])
    if "norm_topk_prob" in c:
        m["expert_weights_norm"] = c["norm_topk_prob"]
    if arch == "qwen2moe":
        m["expert_shared_feed_forward_length"] = c["shared_expert_intermediate_size"]
    if arch in ("llama4", "gpt-oss"):
        m["expert_feed_forward_length"] = c["intermediate_size"]
    if arch == "llama4":
        m |= {"feed_forward_length": c["intermediate_size_mlp"],
              "interleave_moe_layer_step": c["interleave_moe_layer_step"],
              "attention.sliding_window": c["attention_chunk_size"], "expert_gating_func": 2}
    if arch == "gpt-oss":
        m["attention.sliding_window"] = c["sliding_window"]
    if arch == "deepseek2":
        nope, rotated = c["qk_nope_head_dim"], c["qk_rope_head_dim"]
        m |= {"attention.kv_lora_rank": c["kv_lora_rank"], "attention.head_count_kv": 1,
              "attention.key_length": c["kv_lora_rank"] + rotated,
              "attention.value_length": c["kv_lora_rank"],
              "attention.key_length_mla": nope + rotated,
              "attention.value_length_mla": c["v_head_dim"], "rope.dimension_count": rotated,
              "leading_dense_block_count": c["first_k_dense_replace"], "expert_gating_func": 2,
              "expert_shared_count": c["n_shared_experts"], "expert_group_count": c["n_group"],
              "expert_group_used_count": c["topk_group"],
              "expert_weights_scale": float(c["routed_scaling_factor"])}
        if c["model_type"] == "deepseek_v2":
            m["expert_gating_func"] = 1
            if c["n_group"] == 1:  # as older files are
                del m["expert_gating_func"], m["expert_group_count"], m["expert_group_used_count"]
        if c.get("q_lora_rank"):
            m["attention.q_lora_rank"] = c["q_lora_rank"]
        if rope.get("mscale_all_dim"):
            m["rope.scaling.yarn_log_multiplier"] = 0.1 * rope["mscale_all_dim"]
    eos = c.get("eos_token_id")
    eos = eos if isinstance(eos, list) else [eos]
    out = {"general.architecture": arch} | {f"{arch}.{k}": v for k, v in m.items()}
    out |= {f"tokenizer.ggml.{k}_token_id": v for k, v in zip(("eos", "eot", "eom"), eos) if v is not None}
    return out


def tensors_of(c: dict, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All tensors under their GGUF names, in the order converters put them."""
    arch, heads = ARCHITECTURES[c["model_type"]], c["num_attention_heads"]
    kv_heads = c.get("num_key_value_heads") or heads
    out: dict[str, np.ndarray] = {}
    stacks: dict[str, dict[int, np.ndarray]] = {}
    for name, w in tensors.items():
        if name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
            out[{"model.e": "token_embd", "model.n": "output_norm", "lm_head": "output"}[name[:7]]
                + ".weight"] = w
            continue
        _, _, number, rest = name.split(".", 3)
        blk = f"blk.{number}."
        stem, _, kind = rest.rpartition(".")
        short = PROJECTIONS.get(stem.rpartition(".")[2])
        if rest.startswith(("mlp.experts.gate_up_proj", "feed_forward.experts.gate_up_proj")):
            # gpt_oss alternates, llama4 has halves; both are [E, in, out].
            bias = rest.endswith("_bias")
            if arch == "gpt-oss":
                gate, up = w[..., ::2], w[..., 1::2]
            else:
                gate, up = np.split(w, 2, axis=-1)
            for part, v in (("gate", gate), ("up", up)):
                out[f"{blk}ffn_{part}_exps.{'bias' if bias else 'weight'}"] = v if bias else v.swapaxes(1, 2)
        elif rest.startswith(("mlp.experts.down_proj", "feed_forward.experts.down_proj")):
            bias = rest.endswith("_bias")
            out[f"{blk}ffn_down_exps.{'bias' if bias else 'weight'}"] = w if bias else w.swapaxes(1, 2)
        elif ".experts." in rest:
            expert = int(rest.split(".experts.")[1].split(".")[0])
            stacks.setdefault(f"{blk}ffn_{short}_exps.{kind}", {})[expert] = w
        elif "shared_expert." in rest or "shared_experts." in rest:
            out[f"{blk}ffn_{short}_shexp.{kind}"] = w
        elif stem == "self_attn.kv_b_proj":
            per_head = w.reshape(heads, c["qk_nope_head_dim"] + c["v_head_dim"], -1)
            out[blk + "attn_k_b.weight"] = per_head[:, :c["qk_nope_head_dim"]].swapaxes(1, 2)
            out[blk + "attn_v_b.weight"] = per_head[:, c["qk_nope_head_dim"]:]
        elif rest == "self_attn.sinks":
            out[blk + "attn_sinks.weight"] = w
        elif rest == "post_attention_layernorm.weight":
            out[blk + ("post_attention_norm" if arch == "gpt-oss" else "ffn_norm") + ".weight"] = w
        elif rest == "mlp.gate.e_score_correction_bias":
            out[blk + "exp_probs_b.bias"] = w
        elif short and stem.rpartition(".")[0] in ("mlp", "feed_forward"):
            out[f"{blk}ffn_{short}.{kind}"] = w
        else:
            if arch == "llama" and stem in ("self_attn.q_proj", "self_attn.k_proj"):
                w = permuted(w, heads if "q_proj" in stem else kv_heads)
            out[blk + NAMES[stem] + "." + kind] = w[0] if stem == "mlp.shared_expert_gate" else w
    for name, experts in stacks.items():
        out[name] = np.stack([experts[e] for e in range(len(experts))])
    rope = c.get("rope_scaling") or {}
    if rope.get("rope_type") == "llama3":
        dim = c.get("head_dim") or c["hidden_size"] // heads
        out["rope_freqs.weight"] = llama3_factors(rope, c["rope_theta"], dim)
    return out


def is_kept_wide(name: str, w: np.ndarray) -> bool:
    """What converters leave in F32: vectors, routers, and what is not a weight."""
    return w.ndim < 2 or "ffn_gate_inp" in name or not name.endswith(".weight")


def convert(checkpoint: pathlib.Path, path: pathlib.Path, kind: str = "F32",
            extra: dict[str, Any] | None = None, parts: int = 1) -> None:
    """Matrices in `kind` where their rows are whole blocks, else in F16; the rest in F32. With
    `parts`, path is the stem of NAME-0000i-of-0000n.gguf."""
    config, tensors = read_checkpoint(checkpoint)
    listed = []
    for name, w in tensors_of(config, tensors).items():
        used = kind if w.shape[-1] % TYPES[kind][1] == 0 else "F16"
        used = "F32" if is_kept_wide(name, w) else used
        listed.append((name, w.shape, used, quantise(w, used)))
    metadata = metadata_of(config) | (extra or {})
    if parts == 1:
        path.write_bytes(container(metadata, listed))
        return
    for i in range(parts):
        split = {"split.no": Value(U16, i), "split.count": Value(U16, parts),
                 "split.tensors.count": Value(I32, len(listed))}
        own = listed[i::parts]
        name = f"{path}-{i + 1:05}-of-{parts:05}.gguf"
        pathlib.Path(name).write_bytes(container((metadata if i == 0 else {}) | split, own))


def vocabulary(tokenizer: dict, pre: str, **extra: Any) -> dict[str, Any]:
    """Metadata of a byte-level tokenizer.json."""
    tokens = dict(tokenizer["model"]["vocab"])
    special = {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
    tokens |= special
    size = max(tokens.values()) + 1
    by_id = {i: t for t, i in tokens.items()}
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    types = [3 if by_id.get(i) in special else 1 if i in by_id else 5 for i in range(size)]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": [by_id.get(i, f"[PAD{i}]") for i in range(size)],
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges,
            **{f"tokenizer.ggml.{k}": v for k, v in extra.items()}}


# --- samples ------------------------------------------------------------------------------------


def tiny(arch: str, kind: str) -> bytes:
    """A model of one layer with two experts and a vocabulary of bytes."""
    rng = np.random.default_rng(3)
    width, vocab = 32, 20
    metadata = {"general.architecture": arch} | {f"{arch}.{k}": v for k, v in {
        "embedding_length": width, "block_count": 1, "context_length": 16, "attention.head_count": 2,
        "feed_forward_length": width, "expert_count": 2, "expert_used_count": 1}.items()}
    letters = [chr(97 + i) for i in range(vocab - 2)]
    metadata |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
                 "tokenizer.ggml.tokens": [*letters, "ab", "<end>"],
                 "tokenizer.ggml.token_type": [1] * (vocab - 1) + [3],
                 "tokenizer.ggml.merges": ["a b"], "tokenizer.ggml.eos_token_id": vocab - 1,
                 "tokenizer.chat_template": "{{ messages[0].content }}"}
    square = (width, width)
    matrices = {"token_embd": (vocab, width), "blk.0.attn_q": square, "blk.0.attn_k": square,
                "blk.0.attn_v": square, "blk.0.attn_output": square} | {
                f"blk.0.ffn_{part}_exps": (2, *square) for part in ("gate", "up", "down")}
    tensors = [(n + ".weight", s, kind, random_blocks(kind, int(np.prod(s)), rng))
               for n, s in matrices.items()]
    tensors.append(("blk.0.ffn_gate_inp.weight", (2, width), "F32",
                    rng.normal(size=(2, width)).astype("<f4").tobytes()))
    names = ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"]
    if arch == "olmoe":
        names += ["blk.0.attn_q_norm", "blk.0.attn_k_norm"]
    tensors += [(n + ".weight", (width,), "F32", np.ones(width, "<f4").tobytes()) for n in names]
    return container(metadata, tensors)



def samples() -> dict[str, bytes]:
    """Whole and broken files by name; "ok-…" are whole."""
    weights = np.arange(64, dtype=np.float32)
    one = [("a", (2, 32), "F32", weights.tobytes())]
    meta = {"general.architecture": "olmoe", "general.alignment": 32, "list": [1, 2, 3],
            "texts": ["x", "yz"], "numbers": [0.5, 1.5], "flag": True}
    good = container(meta, one)

    def info(dims: list[int], kind: int = 0, offset: int = 0, name: str = "a") -> bytes:
        head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text(name) + struct.pack("<I", len(dims))
        head += b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, offset)
        return head + b"\0" * (-len(head) % 32) + b"\0" * 256

    def start(tensors: int, entries: int, version: int = 3, rest: bytes = b"") -> bytes:
        return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest

    blocks = random_blocks("Q4_K", 512, np.random.default_rng(1))
    twice = [one[0], one[0]]
    return {
        "ok-plain": good, "ok-blocks": container({}, [("a", (2, 256), "Q4_K", blocks)]),
        "ok-olmoe": tiny("olmoe", "Q8_0"), "ok-llama": tiny("llama", "Q4_0"),
        "ok-nothing": start(0, 0), "magic": b"GGML" + good[4:], "short": good[:30],
        "truncated-data": good[:-40], "trailing": good + b"\0" * 64,
        "version-2": start(0, 0, 2), "version-1": start(0, 0, 1),
        "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "many-tensors": start(2**63, 0), "many-entries": start(0, 2**61),
        "long-key": start(0, 1, rest=struct.pack("<Q", 2**64 - 1) + b"k" * 40),
        "long-text": start(0, 1, rest=text("k") + struct.pack("<IQ", TEXT, 2**63) + b"x" * 40),
        "long-list": start(0, 1, rest=text("k") + struct.pack("<IIQ", LIST, U64, 2**61) + b"x" * 40),
        "list-of-lists": start(0, 1, rest=text("k") + struct.pack("<IIQ", LIST, LIST, 1) + b"x" * 40),
        "unknown-type": start(0, 1, rest=text("k") + struct.pack("<I", 13) + b"x" * 40),
        "bad-boolean": start(0, 1, rest=text("k") + struct.pack("<IB", BOOL, 2) + b"\0" * 40),
        "huge-number": start(0, 1, rest=text("k") + struct.pack("<IQ", U64, 2**64 - 1) + b"\0" * 40),
        "key-twice": start(0, 2, rest=2 * (text("k") + struct.pack("<II", U32, 1))),
        "key-not-utf8": start(0, 1, rest=text(b"\xff\xfe") + struct.pack("<II", U32, 1)),
        "alignment-0": container({"general.alignment": 0}, one),
        "alignment-3": container({"general.alignment": 3}, one),
        "no-dimension": info([]), "five-dimensions": info([1, 1, 1, 1, 1]),
        "zero-dimension": info([32, 0]), "negative-dimension": info([2**64 - 32]),
        "overflow": info([2**31, 2**31, 2**31]), "overflow-to-zero": info([2**62, 4]),
        "part-of-a-block": info([48], 12), "offset-beyond": info([32], 0, 4096),
        "offset-misaligned": info([32], 0, 4), "offset-huge": info([32], 0, 2**64 - 32),
        "type-unknown": info([256], 99), "type-iq1-s": info([256], 19), "type-q8-k": info([256], 15),
        "name-empty": info([32], 0, 0, ""), "name-twice": container({}, twice),
    }
