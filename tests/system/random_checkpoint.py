"""Small checkpoints with random weights and random options, as Hugging Face would store them.

`build(family, seed, directory)` writes config.json and model.safetensors. What is drawn per
checkpoint: sizes (head counts that do not divide the hidden size, widths of no round number), rope
scaling and its spelling, masks, biases, norms, the placing of layers, the experts' layout on disk
and the stored type. Needs NumPy.
"""
from __future__ import annotations

import json
import pathlib
import struct

import numpy as np

FAMILIES = ("mixtral", "olmoe", "flex_olmo", "qwen2_moe", "qwen3_moe", "deepseek_v3", "llama4_text",
            "llama4", "gpt_oss", "llama", "qwen3")
MAX_POSITION = 64


def write_safetensors(path: pathlib.Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    header, blobs, at = {}, [], 0
    for name, (dtype, array) in tensors.items():
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


class Builder:
    """One checkpoint in the making: `config` and `tensors`, drawn from one random stream."""

    def __init__(self, family: str, seed: int) -> None:
        self.family = family
        self.rng = np.random.default_rng([FAMILIES.index(family), seed])
        self.tensors: dict[str, tuple[str, np.ndarray]] = {}
        self.dtype = self.pick("F32", "BF16", "F16")
        self.prefix = "language_model." if family == "llama4" else ""
        self.layers = int(self.rng.integers(1, 5))
        self.hidden = self.pick(32, 48, 64)
        self.heads, self.kv_heads = self.pick((4, 4), (4, 2), (4, 1), (6, 2), (2, 2))
        self.head_dim = self.pick(8, 12, 16)
        self.width = self.pick(24, 40, 64)
        self.experts, self.top_k = self.pick((4, 1), (4, 2), (6, 3), (8, 4), (5, 5))
        self.vocab = 96
        self.config: dict = {
            "model_type": family, "hidden_size": self.hidden, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim, "vocab_size": self.vocab, "hidden_act": "silu",
            "max_position_embeddings": MAX_POSITION, "intermediate_size": self.width,
            "rms_norm_eps": self.pick(1e-6, 1e-5, 1e-2),
            "tie_word_embeddings": self.chance(0.3)}

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def store(self, name: str, values: np.ndarray, dtype: str | None = None) -> None:
        dtype = dtype or self.dtype
        if dtype == "BF16":
            stored = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        else:
            stored = values.astype({"F32": np.float32, "F16": np.float16}[dtype])
        self.tensors[self.prefix + name] = (dtype, stored)

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return self.rng.normal(size=shape) * scale

    def linear(self, name: str, out: int, inner: int, bias: bool = False) -> None:
        self.store(name + ".weight", self.normal(out, inner, scale=1.5 * inner**-0.5))
        if bias:
            self.store(name + ".bias", self.normal(out, scale=0.3))

    def norm(self, name: str, size: int) -> None:
        self.store(name + ".weight", 1 + self.normal(size, scale=0.2))

    # Parts that families share.

    def rope(self, *types: str, dim: int) -> None:
        """theta and scaling, in the spelling of one release or the other."""
        theta = self.pick(100.0, 1e4, 5e5)
        kind = self.pick("default", *types)
        rope: dict = {"rope_type": kind}
        if kind != "default":
            rope["factor"] = self.pick(2.0, 4.0, 8.0)
        if kind == "llama3":
            rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 16}
        if kind == "yarn":
            rope["original_max_position_embeddings"] = self.pick(8, 16)
            if self.chance(0.5):
                rope["truncate"] = self.chance(0.5)
            if self.chance(0.4):
                rope |= {"beta_fast": 4.0, "beta_slow": 0.5}
            if self.chance(0.3):
                rope["attention_factor"] = 1.3
            elif self.chance(0.5):
                rope |= {"mscale": 0.7, "mscale_all_dim": self.pick(0.7, 1.0)}
        if self.chance(0.5):
            self.config["rope_parameters"] = rope | {"rope_theta": theta}
        else:
            self.config["rope_theta"] = theta
            if kind == "default":
                self.config["rope_scaling"] = None
            else:
                legacy = "type" if self.chance(0.5) else "rope_type"
                self.config["rope_scaling"] = {legacy: rope.pop("rope_type"), **rope}

    def attention(self, layer: int, bias: bool, out_bias: bool) -> str:
        at = f"model.layers.{layer}.self_attn."
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.linear(at + "q_proj", q, self.hidden, bias)
        self.linear(at + "k_proj", kv, self.hidden, bias)
        self.linear(at + "v_proj", kv, self.hidden, bias)
        self.linear(at + "o_proj", self.hidden, q, out_bias)
        return at

    def mlp(self, at: str, width: int, bias: bool = False) -> None:
        self.linear(at + "gate_proj", width, self.hidden, bias)
        self.linear(at + "up_proj", width, self.hidden, bias)
        self.linear(at + "down_proj", self.hidden, width, bias)

    def routed(self, at: str, width: int, fused: bool, names=("gate_proj", "up_proj", "down_proj")) -> None:
        """Experts one by one or in two stacks, as transformers 5 writes them."""
        if fused:
            self.store(at + "experts.gate_up_proj",
                       self.normal(self.experts, 2 * width, self.hidden, scale=1.5 * self.hidden**-0.5))
            self.store(at + "experts.down_proj",
                       self.normal(self.experts, self.hidden, width, scale=1.5 * width**-0.5))
            return
        for e in range(self.experts):
            for name, out, inner in zip(names, (width, width, self.hidden),
                                        (self.hidden, self.hidden, width)):
                self.linear(f"{at}experts.{e}.{name}", out, inner)

    def layer_norms(self, layer: int, *names: str) -> None:
        for name in names or ("input_layernorm", "post_attention_layernorm"):
            self.norm(f"model.layers.{layer}.{name}", self.hidden)

    def ends(self) -> None:
        self.store("model.embed_tokens.weight", self.normal(self.vocab, self.hidden))
        self.norm("model.norm", self.hidden)
        if not self.config["tie_word_embeddings"]:
            self.linear("lm_head", self.vocab, self.hidden)

    def experts_config(self, count_key: str) -> None:
        self.config[count_key] = self.experts
        self.config["num_experts_per_tok"] = self.top_k

    # Families.

    def mixtral(self) -> None:
        self.rope("linear", "yarn", "llama3", dim=self.head_dim)
        self.experts_config("num_local_experts")
        self.config["sliding_window"] = self.pick(None, 5, 16)
        fused = self.chance(0.4)
        for l in range(self.layers):
            self.layer_norms(l)
            self.attention(l, False, False)
            at = f"model.layers.{l}." + ("mlp." if fused else "block_sparse_moe.")
            self.linear(at + "gate", self.experts, self.hidden)
            self.routed(at, self.width, fused, ("w1", "w3", "w2"))

    def olmoe(self) -> None:
        self.head_dim = self.hidden // self.heads // 2 * 2
        self.hidden = self.config["hidden_size"] = self.head_dim * self.heads
        del self.config["head_dim"]
        self.config["clip_qkv"] = self.pick(None, 0.8)
        self.olmo("input_layernorm", "post_attention_layernorm")

    def flex_olmo(self) -> None:
        self.olmo("post_attention_layernorm", "post_feedforward_layernorm")

    def olmo(self, *norms: str) -> None:
        self.rope("linear", "yarn", "llama3", dim=self.head_dim)
        self.experts_config("num_experts")
        self.config["norm_topk_prob"] = self.chance(0.5)
        bias = self.config["attention_bias"] = self.chance(0.3)
        fused = self.chance(0.4)
        for l in range(self.layers):
            self.layer_norms(l, *norms)
            at = self.attention(l, bias, bias)
            self.norm(at + "q_norm", self.heads * self.head_dim)
            self.norm(at + "k_norm", self.kv_heads * self.head_dim)
            self.linear(f"model.layers.{l}.mlp.gate", self.experts, self.hidden)
            self.routed(f"model.layers.{l}.mlp.", self.width, fused)

    def sparse_layers(self) -> list[bool]:
        step = self.config["decoder_sparse_step"] = self.pick(1, 1, 2)
        dense = self.config["mlp_only_layers"] = [0] if self.chance(0.3) else []
        self.config["moe_intermediate_size"] = self.pick(16, 20, 36)
        self.config["norm_topk_prob"] = self.chance(0.5)
        return [l not in dense and (l + 1) % step == 0 for l in range(self.layers)]

    def qwen_layer(self, layer: int, sparse: bool, fused: bool) -> None:
        at = f"model.layers.{layer}.mlp."
        if not sparse:
            return self.mlp(at, self.width)
        self.linear(at + "gate", self.experts, self.hidden)
        self.routed(at, self.config["moe_intermediate_size"], fused)

    def qwen2_moe(self) -> None:
        self.rope("linear", "yarn", "llama3", dim=self.head_dim)
        self.head_dim = self.hidden // self.heads // 2 * 2
        self.hidden = self.config["hidden_size"] = self.head_dim * self.heads
        del self.config["head_dim"]
        self.experts_config("num_experts")
        sparse, fused = self.sparse_layers(), self.chance(0.4)
        shared = self.config["shared_expert_intermediate_size"] = self.pick(16, 28)
        bias = self.chance(0.7)
        if not bias or self.chance(0.5):
            self.config["qkv_bias"] = bias
        for l in range(self.layers):
            self.layer_norms(l)
            self.attention(l, bias, False)
            self.qwen_layer(l, sparse[l], fused)
            if sparse[l]:
                self.mlp(f"model.layers.{l}.mlp.shared_expert.", shared)
                self.linear(f"model.layers.{l}.mlp.shared_expert_gate", 1, self.hidden)

    def qwen3_moe(self) -> None:
        self.rope("linear", "yarn", "llama3", dim=self.head_dim)
        self.experts_config(self.pick("num_experts", "num_local_experts"))
        sparse, fused = self.sparse_layers(), self.chance(0.4)
        bias = self.config["attention_bias"] = self.chance(0.3)
        self.config["use_sliding_window"] = self.chance(0.4)
        self.config["sliding_window"] = self.pick(6, 17)
        for l in range(self.layers):
            self.layer_norms(l)
            self.head_norms(self.attention(l, bias, bias))
            self.qwen_layer(l, sparse[l], fused)

    def head_norms(self, at: str) -> None:
        self.norm(at + "q_norm", self.head_dim)
        self.norm(at + "k_norm", self.head_dim)

    def llama(self) -> None:
        self.rope("linear", "yarn", "llama3", dim=self.head_dim)
        bias = self.config["attention_bias"] = self.chance(0.4)
        mlp_bias = self.config["mlp_bias"] = self.chance(0.4)
        for l in range(self.layers):
            self.layer_norms(l)
            self.attention(l, bias, bias)
            self.mlp(f"model.layers.{l}.mlp.", self.width, mlp_bias)

    def qwen3(self) -> None:
        self.rope("linear", "yarn", "llama3", dim=self.head_dim)
        bias = self.config["attention_bias"] = self.chance(0.4)
        self.config |= {"use_sliding_window": self.chance(0.6), "sliding_window": self.pick(4, 11),
                        "max_window_layers": self.pick(0, 1, 2)}
        for l in range(self.layers):
            self.layer_norms(l)
            self.head_norms(self.attention(l, bias, bias))
            self.mlp(f"model.layers.{l}.mlp.", self.width)

    def deepseek_v3(self) -> None:
        c, nope, rot, v = self.config, self.pick(8, 12), self.pick(4, 8), self.pick(8, 10)
        self.rope("yarn", "linear", dim=rot)
        q_rank, kv_rank = self.pick(None, 20), self.pick(16, 24)
        groups, kept, self.experts, self.top_k = self.pick((1, 1, 6, 3), (2, 1, 8, 3), (4, 2, 8, 4),
                                                           (4, 3, 16, 4))
        del c["head_dim"]
        c |= {"qk_nope_head_dim": nope, "qk_rope_head_dim": rot, "v_head_dim": v, "q_lora_rank": q_rank,
              "kv_lora_rank": kv_rank, "n_group": groups, "topk_group": kept,
              "norm_topk_prob": self.chance(0.7), "routed_scaling_factor": self.pick(1.0, 2.5),
              "first_k_dense_replace": self.pick(0, 1), "n_shared_experts": self.pick(1, 2),
              "moe_intermediate_size": self.pick(16, 20), "rope_interleave": self.chance(0.5)}
        self.experts_config("n_routed_experts")
        bias = c["attention_bias"] = self.chance(0.3)
        fp8 = self.chance(0.3)
        if fp8:
            self.hidden, c["moe_intermediate_size"] = 160, 136
            c["hidden_size"] = 160
            c["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3",
                                        "weight_block_size": [128, 128]}
        for l in range(self.layers):
            self.layer_norms(l)
            at = f"model.layers.{l}.self_attn."
            if q_rank is None:
                self.linear(at + "q_proj", self.heads * (nope + rot), self.hidden)
            else:
                self.linear(at + "q_a_proj", q_rank, self.hidden, bias)
                self.norm(at + "q_a_layernorm", q_rank)
                self.linear(at + "q_b_proj", self.heads * (nope + rot), q_rank)
            self.linear(at + "kv_a_proj_with_mqa", kv_rank + rot, self.hidden, bias)
            self.norm(at + "kv_a_layernorm", kv_rank)
            self.linear(at + "kv_b_proj", self.heads * (nope + v), kv_rank)
            self.linear(at + "o_proj", self.hidden, self.heads * v, bias)
            at = f"model.layers.{l}.mlp."
            if l < c["first_k_dense_replace"]:
                self.mlp(at, self.width)
                continue
            self.linear(at + "gate", self.experts, self.hidden)
            self.store(at + "gate.e_score_correction_bias", self.normal(self.experts, scale=0.5), "F32")
            self.routed(at, c["moe_intermediate_size"], False)
            self.mlp(at + "shared_experts.", c["moe_intermediate_size"] * c["n_shared_experts"])
        if fp8:
            self.to_fp8()

    def to_fp8(self) -> None:
        """Two-dimensional projections become codes of magnitude below 2 with a scale per block."""
        for name in [n for n in self.tensors if "_proj" in n and n.endswith(".weight")]:
            out, inner = self.tensors[name][1].shape
            codes = self.rng.integers(0, 64, (out, inner)) | (self.rng.integers(0, 2, (out, inner)) << 7)
            blocks = ((out + 127) // 128, (inner + 127) // 128)
            self.tensors[name] = ("F8_E4M3", codes.astype(np.uint8))
            scale = self.rng.uniform(1, 3, blocks) * inner**-0.5
            self.tensors[name + "_scale_inv"] = ("F32", scale.astype(np.float32))

    def llama4_text(self) -> None:
        c = self.config
        self.rope("llama3", dim=self.head_dim)
        self.experts_config("num_local_experts")
        c |= {"intermediate_size_mlp": self.pick(28, 52), "interleave_moe_layer_step": self.pick(1, 2),
              "attention_chunk_size": self.pick(7, 16), "use_qk_norm": self.chance(0.6),
              "attn_temperature_tuning": self.chance(0.7), "floor_scale": self.pick(4, 9),
              "attn_scale": 0.3, "attention_bias": False}
        if self.chance(0.5):
            c["no_rope_layers"] = [int(self.chance(0.6)) for _ in range(self.layers)]
        else:
            c["no_rope_layer_interval"] = self.pick(2, 3)
        step = c["interleave_moe_layer_step"]
        sparse = list(range(step - 1, self.layers, step))
        if self.chance(0.4):
            sparse = c["moe_layers"] = sorted({l for l in range(self.layers) if self.chance(0.6)})
        for l in range(self.layers):
            self.layer_norms(l)
            self.attention(l, False, False)
            at = f"model.layers.{l}.feed_forward."
            if l not in sparse:
                self.mlp(at, c["intermediate_size_mlp"])
                continue
            self.linear(at + "router", self.experts, self.hidden)
            self.store(at + "experts.gate_up_proj", self.normal(
                self.experts, self.hidden, 2 * self.width, scale=1.5 * self.hidden**-0.5))
            self.store(at + "experts.down_proj", self.normal(
                self.experts, self.width, self.hidden, scale=1.5 * self.width**-0.5))
            self.mlp(at + "shared_expert.", self.width)

    def llama4(self) -> None:
        self.llama4_text()
        text = self.config | {"model_type": "llama4_text"}
        self.config = {"model_type": "llama4", "text_config": text,
                       "tie_word_embeddings": text["tie_word_embeddings"]}

    def gpt_oss(self) -> None:
        c = self.config
        packed = self.chance(0.5)
        if packed:  # rows in blocks of 32
            self.hidden, self.width = self.pick(32, 64), self.pick(32, 64)
            c |= {"hidden_size": self.hidden, "intermediate_size": self.width,
                  "quantization_config": {"quant_method": "mxfp4"}}
        self.rope("yarn", dim=self.head_dim)
        if "rope_scaling" in c and c["rope_scaling"] is None:  # ambiguous, and refused
            del c["rope_scaling"]
            c["rope_parameters"] = {"rope_type": "default", "rope_theta": c.pop("rope_theta")}
        self.experts_config("num_local_experts")
        c |= {"sliding_window": self.pick(5, 12), "attention_bias": True, "swiglu_limit": 7.0}
        if self.chance(0.5):
            c["layer_types"] = [self.pick("sliding_attention", "full_attention")
                                for _ in range(self.layers)]
        for l in range(self.layers):
            self.layer_norms(l)
            at = self.attention(l, True, True)
            self.store(at + "sinks", self.normal(self.heads))
            at = f"model.layers.{l}.mlp."
            self.linear(at + "router", self.experts, self.hidden, True)
            for name, out, inner in (("gate_up_proj", 2 * self.width, self.hidden),
                                     ("down_proj", self.hidden, self.width)):
                self.store(f"{at}experts.{name}_bias", self.normal(self.experts, out, scale=0.3))
                if not packed:  # scaled up so that the clamp at 7 is reached
                    self.store(f"{at}experts.{name}",
                               self.normal(self.experts, inner, out, scale=4 * inner**-0.5))
                    continue
                blocks = self.rng.integers(0, 256, (self.experts, out, inner // 32, 16))
                scales = self.rng.integers(123, 127, (self.experts, out, inner // 32))
                self.tensors[f"{at}experts.{name}_blocks"] = ("U8", blocks.astype(np.uint8))
                self.tensors[f"{at}experts.{name}_scales"] = ("U8", scales.astype(np.uint8))


def build(family: str, seed: int, directory: pathlib.Path) -> dict:
    """Writes the checkpoint; returns its config."""
    builder = Builder(family, seed)
    getattr(builder, family)()
    config = builder.config
    text = config.get("text_config", config)
    builder.config = text  # `ends` asks it for the tied head
    builder.ends()
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    write_safetensors(directory / "model.safetensors", builder.tensors)
    return config
