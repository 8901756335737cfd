#!/usr/bin/python3
"""Writes tests/golden/families: tiny random checkpoints of options that the shared golden set does
not show, with the outputs of its independent float64 implementation (reference.py, NumPy).

    python3 tests/golden/make_families.py [NAME...]     needs ../shared/golden and python3-numpy

Same files and tensor names as a golden of the shared set (golden.safetensors: prompts, logits,
router choices with margins, greedy continuations). Prompts are drawn until every router choice
and every greedy step has a margin that float32 resolves; the seed is fixed, so a run gives the same
files.
"""
import importlib.util
import json
import pathlib
import struct
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared" / "golden"
LENGTHS = (1, 5, 13, 40)
GREEDY = 8
SEED, ATTEMPTS = 4711, 1000
LEAST_CHOICE, LEAST_GREEDY = 0.004, 0.02

spec = importlib.util.spec_from_file_location("reference", SHARED / "reference.py")
assert spec is not None and spec.loader is not None
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


class Cfg(reference.Cfg):
    """DeepSeek-V2 is V3 but for its router."""

    def __init__(self, folder, mut=()):
        super().__init__(folder, mut)
        self.softmax_groups = self.mt == "deepseek_v2"
        if self.softmax_groups:
            c, self.mt = self.c, "deepseek_v3"
            self.dn, self.dr, self.dv = (c[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
            self.kvl, self.ql = c["kv_lora_rank"], c["q_lora_rank"]


reference.Cfg = Cfg

COMMON = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
              vocab_size=96, hidden_act="silu", rms_norm_eps=1e-3, rope_theta=10000.0,
              max_position_embeddings=4096, eos_token_id=3, tie_word_embeddings=False)
YARN = {"factor": 16.0, "original_max_position_embeddings": 32, "beta_fast": 8.0, "beta_slow": 1.0}


def case(model_type, drop=(), **patch):
    config = {"model_type": model_type, **COMMON, **patch}
    return {k: v for k, v in config.items() if k not in drop}


CASES = {
    "qwen2_moe": case(
        "qwen2_moe", intermediate_size=40, moe_intermediate_size=16, num_experts=6,
        num_experts_per_tok=2, shared_expert_intermediate_size=24, norm_topk_prob=False,
        mlp_only_layers=[1], use_sliding_window=False, sliding_window=4096, max_window_layers=2,
        rope_scaling={"type": "linear", "factor": 2.0}),
    "gpt_oss": case(
        "gpt_oss", drop=("rope_theta",), intermediate_size=16, num_local_experts=5,
        num_experts_per_tok=2, head_dim=16, sliding_window=6, attention_bias=True,
        rope_theta=150000, swiglu_limit=7.0, experts_per_token=2,
        rope_scaling={"rope_type": "yarn", "truncate": False, "factor": 32.0, "beta_fast": 32.0,
                      "beta_slow": 1.0, "original_max_position_embeddings": 4096}),
    "gpt_oss_mxfp4": case(
        "gpt_oss", drop=("rope_theta",), intermediate_size=32, num_local_experts=4,
        num_experts_per_tok=3, head_dim=8, sliding_window=5,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        rope_parameters={"rope_type": "yarn", "rope_theta": 150000.0, "truncate": False, **YARN},
        quantization_config={"quant_method": "mxfp4"}),
    "qwen3_sliding": case(
        "qwen3", intermediate_size=40, head_dim=16, use_sliding_window=True, sliding_window=6,
        max_window_layers=1, attention_bias=True, tie_word_embeddings=True,
        rope_scaling={"type": "yarn", "attention_factor": 1.2, **YARN}),
    "llama_biases": case(
        "llama", intermediate_size=40, attention_bias=True, mlp_bias=True,
        num_key_value_heads=None, rope_scaling={"rope_type": "yarn", **YARN}),
    "deepseek_v3_direct": case(
        "deepseek_v3", num_key_value_heads=4, intermediate_size=40, moe_intermediate_size=16,
        n_routed_experts=6, num_experts_per_tok=3, n_group=1, topk_group=1, n_shared_experts=2,
        first_k_dense_replace=1, norm_topk_prob=False, routed_scaling_factor=1.5, rms_norm_eps=1e-2,
        q_lora_rank=None, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10,
        attention_bias=True, rope_interleave=False, num_nextn_predict_layers=1,
        rope_scaling={"type": "yarn", "mscale": 0.8, "mscale_all_dim": 1.1, **YARN}),
    "deepseek_v3_grouped": case(
        "deepseek_v3", num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=8,
        num_experts_per_tok=2, n_group=4, topk_group=2, n_shared_experts=1,
        first_k_dense_replace=0, norm_topk_prob=True, routed_scaling_factor=2.0, rms_norm_eps=1e-2,
        q_lora_rank=14, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10,
        attention_bias=True, rope_scaling={"type": "linear", "factor": 2.0}),
    "deepseek_v2_grouped": case(
        "deepseek_v2", num_key_value_heads=4, intermediate_size=40, moe_intermediate_size=16,
        n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, n_shared_experts=2,
        first_k_dense_replace=1, norm_topk_prob=False, routed_scaling_factor=4.0,
        topk_method="group_limited_greedy", scoring_func="softmax", moe_layer_freq=1,
        rms_norm_eps=1e-2, q_lora_rank=14, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8,
        v_head_dim=10, attention_bias=False,
        rope_scaling={"type": "yarn", "mscale": 0.707, "mscale_all_dim": 0.707, **YARN}),
    "deepseek_v2_lite": case(
        "deepseek_v2", num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=5,
        num_experts_per_tok=2, n_group=1, topk_group=1, n_shared_experts=1, first_k_dense_replace=0,
        norm_topk_prob=False, routed_scaling_factor=1.0, topk_method="greedy", rms_norm_eps=1e-2,
        q_lora_rank=None, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10,
        attention_bias=False),
    "llama4_two_experts": case(
        "llama4_text", intermediate_size=16, intermediate_size_mlp=40, num_local_experts=5,
        num_experts_per_tok=2, interleave_moe_layer_step=2, no_rope_layers=[1, 0, 1], head_dim=16,
        attention_chunk_size=8, use_qk_norm=True, attn_temperature_tuning=4, floor_scale=4,
        attn_scale=0.3, rope_scaling={"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
                                      "high_freq_factor": 4.0,
                                      "original_max_position_embeddings": 64}),
    # As Llama 4 Scout was released: no band between the low and the high frequencies.
    "llama4_scout": case(
        "llama4_text", intermediate_size=16, intermediate_size_mlp=40, num_local_experts=5,
        num_experts_per_tok=1, interleave_moe_layer_step=1, no_rope_layers=[], head_dim=16,
        attention_chunk_size=16, use_qk_norm=True, num_hidden_layers=4,
        rope_scaling={"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0,
                      "high_freq_factor": 1.0, "original_max_position_embeddings": 64}),
    "qwen3_moe_sparse": case(
        "qwen3_moe", drop=("rope_theta",), intermediate_size=40, moe_intermediate_size=16,
        num_local_experts=6, num_experts_per_tok=2, norm_topk_prob=False, decoder_sparse_step=2,
        num_hidden_layers=4, mlp_only_layers=[3], use_sliding_window=True, sliding_window=7,
        attention_bias=True, layout="fused",
        rope_parameters={"rope_type": "llama3", "rope_theta": 20000.0, "factor": 4.0,
                         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 64}),
    "olmoe_clip": case(
        "olmoe", intermediate_size=16, num_experts=5, num_experts_per_tok=2, clip_qkv=0.6,
        attention_bias=True, norm_topk_prob=True, rope_scaling={"rope_type": "linear", "factor": 4}),
    "mixtral_yarn": case(
        "mixtral", intermediate_size=16, num_local_experts=4, num_experts_per_tok=2, head_dim=10,
        sliding_window=7, rope_scaling={"rope_type": "yarn", **YARN}),
}


class Tensors:
    """Random BF16 tensors of one checkpoint, in name order of creation."""

    def __init__(self, rng, config):
        self.rng, self.c, self.out = rng, config, {}

    def add(self, name, *shape, mean=0.0, spread=None):
        spread = 1.5 / shape[-1] ** 0.5 if spread is None else spread
        self.out[name] = ("BF16", (self.rng.normal(size=shape) * spread + mean).astype(np.float32))

    def norm(self, name, width):
        self.add(name, width, mean=1.0, spread=0.2)

    def linear(self, name, rows, cols, bias=False):
        self.add(name + ".weight", rows, cols)
        if bias:
            self.add(name + ".bias", rows, spread=0.3)

    def mlp(self, prefix, width, bias=False):
        h = self.c["hidden_size"]
        self.linear(prefix + "gate_proj", width, h, bias)
        self.linear(prefix + "up_proj", width, h, bias)
        self.linear(prefix + "down_proj", h, width, bias)


def attention(t, cfg, prefix):
    c, mt, h = t.c, cfg.mt, cfg.H
    bias = bool(c.get("attention_bias")) or mt == "gpt_oss"
    if mt == "deepseek_v3":
        if cfg.ql is None:
            t.linear(prefix + "q_proj", cfg.nh * (cfg.dn + cfg.dr), h)
        else:
            t.linear(prefix + "q_a_proj", cfg.ql, h, bias)
            t.norm(prefix + "q_a_layernorm.weight", cfg.ql)
            t.linear(prefix + "q_b_proj", cfg.nh * (cfg.dn + cfg.dr), cfg.ql)
        t.linear(prefix + "kv_a_proj_with_mqa", cfg.kvl + cfg.dr, h, bias)
        t.norm(prefix + "kv_a_layernorm.weight", cfg.kvl)
        t.linear(prefix + "kv_b_proj", cfg.nh * (cfg.dn + cfg.dv), cfg.kvl)
        t.linear(prefix + "o_proj", h, cfg.nh * cfg.dv, bias)
        return
    for name, heads in (("q_proj", cfg.nh), ("k_proj", cfg.nkv), ("v_proj", cfg.nkv)):
        t.linear(prefix + name, heads * cfg.hd, h, bias or mt == "qwen2_moe")
    t.linear(prefix + "o_proj", h, cfg.nh * cfg.hd, bias)
    if mt == "olmoe":
        t.norm(prefix + "q_norm.weight", cfg.nh * cfg.hd)
        t.norm(prefix + "k_norm.weight", cfg.nkv * cfg.hd)
    if mt in ("qwen3", "qwen3_moe"):
        t.norm(prefix + "q_norm.weight", cfg.hd)
        t.norm(prefix + "k_norm.weight", cfg.hd)
    if mt == "gpt_oss":
        t.add(prefix + "sinks", cfg.nh, spread=1.5)


def mxfp4(t, name, experts, rows, cols):
    t.out[name + "_blocks"] = ("U8", t.rng.integers(0, 256, (experts, rows, cols // 32, 16), "u1"))
    t.out[name + "_scales"] = ("U8", t.rng.integers(123, 126, (experts, rows, cols // 32), "u1"))


def experts(t, cfg, layer):
    c, mt, h, e = t.c, cfg.mt, cfg.H, cfg.E
    width = c["intermediate_size"] if mt in ("mixtral", "olmoe", "gpt_oss", "llama4_text") else \
        c["moe_intermediate_size"]
    if mt == "mixtral":
        moe = layer + "block_sparse_moe."
        t.add(moe + "gate.weight", e, h)
        for i in range(e):
            for name, shape in (("w1", (width, h)), ("w2", (h, width)), ("w3", (width, h))):
                t.add(f"{moe}experts.{i}.{name}.weight", *shape)
    elif mt == "llama4_text":
        moe = layer + "feed_forward."
        t.add(moe + "router.weight", e, h)
        t.add(moe + "experts.gate_up_proj", e, h, 2 * width)
        t.add(moe + "experts.down_proj", e, width, h, spread=0.4)
        t.mlp(moe + "shared_expert.", width)
    elif mt == "gpt_oss":
        moe = layer + "mlp."
        t.linear(moe + "router", e, h, bias=True)
        if "quantization_config" in c:
            mxfp4(t, moe + "experts.gate_up_proj", e, 2 * width, h)
            mxfp4(t, moe + "experts.down_proj", e, h, width)
        else:
            # Wide enough that some activations reach the clamp at 7.
            t.add(moe + "experts.gate_up_proj", e, h, 2 * width, spread=0.8)
            t.add(moe + "experts.down_proj", e, width, h, spread=0.1)
        t.add(moe + "experts.gate_up_proj_bias", e, 2 * width, spread=0.5)
        t.add(moe + "experts.down_proj_bias", e, h, spread=0.3)
    else:
        moe = layer + "mlp."
        t.add(moe + "gate.weight", e, h)
        if mt == "deepseek_v3":
            if not cfg.softmax_groups:
                t.add(moe + "gate.e_score_correction_bias", e, spread=0.2)
                t.out[moe + "gate.e_score_correction_bias"] = \
                    ("F32", t.out[moe + "gate.e_score_correction_bias"][1])
            t.mlp(moe + "shared_experts.", width * c["n_shared_experts"])
        if c.get("layout") == "fused":
            t.add(moe + "experts.gate_up_proj", e, 2 * width, h)
            t.add(moe + "experts.down_proj", e, h, width)
        else:
            for i in range(e):
                t.mlp(f"{moe}experts.{i}.", width)
        if mt == "qwen2_moe":
            t.mlp(moe + "shared_expert.", c["shared_expert_intermediate_size"])
            t.add(moe + "shared_expert_gate.weight", 1, h)


def checkpoint(rng, config, cfg):
    t = Tensors(rng, config)
    h, v = cfg.H, config["vocab_size"]
    t.add("model.embed_tokens.weight", v, h, spread=1.0)
    if not config["tie_word_embeddings"]:
        t.add("lm_head.weight", v, h, spread=2.0 / h ** 0.5)
    t.norm("model.norm.weight", h)
    for index in range(cfg.L + config.get("num_nextn_predict_layers", 0)):
        layer = f"model.layers.{index}."
        t.norm(layer + "input_layernorm.weight", h)
        t.norm(layer + "post_attention_layernorm.weight", h)
        attention(t, cfg, layer + "self_attn.")
        if cfg.is_moe(index):
            experts(t, cfg, layer)
        else:
            width = config.get("intermediate_size_mlp", config["intermediate_size"])
            t.mlp(layer + ("feed_forward." if cfg.mt == "llama4_text" else "mlp."), width,
                  bool(config.get("mlp_bias")))
    return t.out


def write_safetensors(path, tensors):
    header, chunks, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, (dtype, values) in tensors.items():
        if dtype == "BF16":
            bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
            raw = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
        else:
            raw = values.astype({"F32": "<f4", "I64": "<i8", "U8": "u1"}[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape),
                        "data_offsets": [at, at + len(raw)]}
        chunks.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))


class Model(reference.Model):
    """Keeps how far every router choice is from another one."""

    def route_v2(self, l, x):
        """DeepSeek-V2: the k most likely of the groups whose best expert is among the best."""
        c = self.s.c
        logits = self.lin(x, f"model.layers.{l}.mlp.gate")
        p = reference.softmax(logits)
        groups, kept = (c["n_group"], c["topk_group"]) if c["topk_method"] != "greedy" else (1, 1)
        best = p.reshape(len(p), groups, -1).max(-1)
        eligible = np.zeros(best.shape, bool)
        np.put_along_axis(eligible, np.argsort(-best, -1, kind="stable")[:, :kept], True, -1)
        eligible = np.repeat(eligible, p.shape[1] // groups, -1)
        ids = np.argsort(-np.where(eligible, p, -1.0), -1, kind="stable")[:, :self.s.k]
        ordered = -np.sort(-np.where(eligible, logits, -np.inf), -1)
        margin = ordered[:, self.s.k - 1] - ordered[:, self.s.k]
        if kept < groups:
            best = -np.sort(-logits.reshape(len(p), groups, -1).max(-1), -1)
            margin = np.minimum(margin, best[:, kept - 1] - best[:, kept])
        self.margins[l] = margin
        return ids, np.take_along_axis(p, ids, -1) * c["routed_scaling_factor"]

    def route(self, l, x):
        if self.s.softmax_groups:
            return self.route_v2(l, x)
        ids, weights = super().route(l, x)
        layer = f"model.layers.{l}."
        name = next(n for n in ("feed_forward.router", "mlp.router", "block_sparse_moe.gate",
                                "mlp.gate") if layer + n + ".weight" in self.w)
        scores = self.lin(x, layer + name)
        if self.s.mt == "deepseek_v3":
            scores = reference.sigm(scores) + self.w[layer + name + ".e_score_correction_bias"]
        ordered = -np.sort(-scores, -1)
        self.margins[l] = ordered[:, self.s.k - 1] - ordered[:, self.s.k]
        return ids, weights

    def forward(self, ids):
        self.margins = {}
        return super().forward(ids)


def prompt_tensors(model, ids, prefix):
    """Reference outputs for one prompt, or None when a margin is too small."""
    logits, routing, _ = model.forward(ids)
    if any(m.min() < LEAST_CHOICE for m in model.margins.values()):
        return None
    out = {prefix + "input_ids": ("I64", ids), prefix + "logits": ("F32", logits)}
    for layer, (chosen, weights) in routing.items():
        order = np.argsort(-weights, -1, kind="stable")
        out[f"{prefix}router.{layer}.ids"] = ("I64", np.take_along_axis(chosen, order, -1))
        out[f"{prefix}router.{layer}.weights"] = ("F32", np.take_along_axis(weights, order, -1))
        out[f"{prefix}router.{layer}.margin"] = ("F32", model.margins[layer])
    greedy = []
    for _ in range(GREEDY):
        row = model.forward(np.concatenate([ids, np.array(greedy, int)]))[0][-1]
        best = np.sort(row)
        if best[-1] - best[-2] < LEAST_GREEDY or \
                any(m[-1] < LEAST_CHOICE for m in model.margins.values()):
            return None
        greedy.append(int(row.argmax()))
    out[prefix + "greedy_ids"] = ("I64", np.array(greedy))
    return out


def golden(model, rng, vocab):
    """Tensors of golden.safetensors."""
    out = {}
    for i, length in enumerate(LENGTHS):
        for _ in range(ATTEMPTS):
            found = prompt_tensors(model, rng.integers(0, vocab, length), f"prompt.{i}.")
            if found is not None:
                out.update(found)
                break
        else:
            raise SystemExit(f"no prompt of {length} tokens with wide enough margins")
    return out


def make(name, config):
    folder = HERE / "families" / name
    folder.mkdir(parents=True, exist_ok=True)
    stored = {k: v for k, v in config.items() if k != "layout"}
    (folder / "config.json").write_text(json.dumps(stored, indent=1) + "\n")
    cfg = reference.Cfg(str(folder))
    rng = np.random.default_rng(SEED)
    write_safetensors(folder / "model.safetensors", checkpoint(rng, config, cfg))
    tensors = golden(Model(str(folder)), rng, config["vocab_size"])
    write_safetensors(folder / "golden.safetensors", tensors)
    print(name, "KiB", [f.stat().st_size // 1024 for f in sorted(folder.iterdir())], flush=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        make(wanted, CASES[wanted])
