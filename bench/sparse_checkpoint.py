"""Writes a checkpoint of realistic size for `chimera-bench load`: all zeros, in a sparse file.

    bench/sparse_checkpoint.py olmoe DIR [--layers N]

Families stand for the layouts on disk: olmoe (BF16, an expert per tensor), llama4_text (BF16 stacks
stored input by output), deepseek_v3 (FP8 with block scales), gpt_oss (MXFP4 stacks). Zeros cost no
disk and nothing else differs for a loader: headers, shapes and sizes are those of such a model.
Standard library only.
"""
from __future__ import annotations

import argparse
import json
import math
import pathlib
import struct
from typing import Iterator

SIZES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1}
Tensor = tuple[str, str, tuple[int, ...]]


def ends(hidden: int, vocab: int) -> Iterator[Tensor]:
    yield "model.embed_tokens.weight", "BF16", (vocab, hidden)
    yield "model.norm.weight", "BF16", (hidden,)
    yield "lm_head.weight", "BF16", (vocab, hidden)


def norms(layer: str, hidden: int) -> Iterator[Tensor]:
    yield layer + "input_layernorm.weight", "BF16", (hidden,)
    yield layer + "post_attention_layernorm.weight", "BF16", (hidden,)


def linears(at: str, shapes: dict[str, tuple[int, int]], bias: bool = False) -> Iterator[Tensor]:
    for name, shape in shapes.items():
        yield f"{at}{name}.weight", "BF16", shape
        if bias:
            yield f"{at}{name}.bias", "BF16", shape[:1]


def attention(at: str, hidden: int, q: int, kv: int, bias: bool = False) -> Iterator[Tensor]:
    yield from linears(at, {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden),
                            "o_proj": (hidden, q)}, bias)


def olmoe(c: dict) -> Iterator[Tensor]:
    h, w = c["hidden_size"], c["intermediate_size"]
    for l in range(c["num_hidden_layers"]):
        at = f"model.layers.{l}."
        yield from norms(at, h)
        yield from attention(at + "self_attn.", h, h, h)
        for name in ("q_norm", "k_norm"):
            yield f"{at}self_attn.{name}.weight", "BF16", (h,)
        yield at + "mlp.gate.weight", "BF16", (c["num_experts"], h)
        for e in range(c["num_experts"]):
            yield from linears(f"{at}mlp.experts.{e}.",
                               {"gate_proj": (w, h), "up_proj": (w, h), "down_proj": (h, w)})


def llama4_text(c: dict) -> Iterator[Tensor]:
    h, w, n = c["hidden_size"], c["intermediate_size"], c["num_local_experts"]
    for l in range(c["num_hidden_layers"]):
        at = f"model.layers.{l}."
        yield from norms(at, h)
        yield from attention(at + "self_attn.", h, h, h // 5)
        at += "feed_forward."
        yield at + "router.weight", "BF16", (n, h)
        yield at + "experts.gate_up_proj", "BF16", (n, h, 2 * w)
        yield at + "experts.down_proj", "BF16", (n, w, h)
        yield from linears(at + "shared_expert.",
                           {"gate_proj": (w, h), "up_proj": (w, h), "down_proj": (h, w)})


def fp8(tensors: Iterator[Tensor]) -> Iterator[Tensor]:
    """Projections in FP8 with one scale for each 128 x 128 block."""
    for name, dtype, shape in tensors:
        if "_proj" not in name:
            yield name, dtype, shape
            continue
        yield name, "F8_E4M3", shape
        yield name + "_scale_inv", "F32", tuple(math.ceil(n / 128) for n in shape)


def deepseek_v3(c: dict) -> Iterator[Tensor]:
    h, w, heads = c["hidden_size"], c["moe_intermediate_size"], c["num_attention_heads"]
    for l in range(c["num_hidden_layers"]):
        at = f"model.layers.{l}."
        yield from norms(at, h)
        yield from fp8(linears(at + "self_attn.", {
            "q_a_proj": (1536, h), "q_b_proj": (heads * 192, 1536), "kv_a_proj_with_mqa": (576, h),
            "kv_b_proj": (heads * 256, 512), "o_proj": (h, heads * 128)}))
        yield at + "self_attn.q_a_layernorm.weight", "BF16", (1536,)
        yield at + "self_attn.kv_a_layernorm.weight", "BF16", (512,)
        yield at + "mlp.gate.weight", "BF16", (c["n_routed_experts"], h)
        yield at + "mlp.gate.e_score_correction_bias", "F32", (c["n_routed_experts"],)
        ffn = {"gate_proj": (w, h), "up_proj": (w, h), "down_proj": (h, w)}
        for e in range(c["n_routed_experts"]):
            yield from fp8(linears(f"{at}mlp.experts.{e}.", ffn))
        yield from fp8(linears(at + "mlp.shared_experts.", ffn))


def gpt_oss(c: dict) -> Iterator[Tensor]:
    h, w, n = c["hidden_size"], c["intermediate_size"], c["num_local_experts"]
    for l in range(c["num_hidden_layers"]):
        at = f"model.layers.{l}."
        yield from norms(at, h)
        yield from attention(at + "self_attn.", h, 64 * 64, 8 * 64, bias=True)
        yield at + "self_attn.sinks", "BF16", (64,)
        yield at + "mlp.router.weight", "BF16", (n, h)
        yield at + "mlp.router.bias", "BF16", (n,)
        for name, out, inner in (("gate_up_proj", 2 * w, h), ("down_proj", h, w)):
            yield f"{at}mlp.experts.{name}_blocks", "U8", (n, out, inner // 32, 16)
            yield f"{at}mlp.experts.{name}_scales", "U8", (n, out, inner // 32)
            yield f"{at}mlp.experts.{name}_bias", "BF16", (n, out)


# Widths and experts of OLMoE-1B-7B, Llama 4 Scout, DeepSeek-V3 and gpt-oss-20b; layers
# as many as make 8 to 15 GB.
CONFIGS: dict[str, dict] = {
    "olmoe": {"num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 1024,
              "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
              "vocab_size": 50304},
    "llama4_text": {"num_hidden_layers": 2, "hidden_size": 5120, "intermediate_size": 8192,
                    "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
                    "num_local_experts": 16, "num_experts_per_tok": 1, "vocab_size": 202048},
    "deepseek_v3": {"num_hidden_layers": 1, "hidden_size": 7168, "moe_intermediate_size": 2048,
                    "num_attention_heads": 128, "n_routed_experts": 256, "num_experts_per_tok": 8,
                    "n_group": 8, "topk_group": 4, "first_k_dense_replace": 0, "vocab_size": 129280,
                    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
                                            "weight_block_size": [128, 128]}},
    "gpt_oss": {"num_hidden_layers": 12, "hidden_size": 2880, "intermediate_size": 2880,
                "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
                "num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201088,
                "quantization_config": {"quant_method": "mxfp4"}},
}


def write(family: str, layers: int, out: pathlib.Path) -> int:
    """config.json and one sparse model.safetensors; returns the size of the latter."""
    config = {"model_type": family, **CONFIGS[family]}
    config["num_hidden_layers"] = layers or config["num_hidden_layers"]
    tensors = [*globals()[family](config), *ends(config["hidden_size"], config["vocab_size"])]
    header, at = {}, 0
    for name, dtype, shape in tensors:
        size = math.prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    with open(out / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return 8 + len(text) + at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=CONFIGS)
    parser.add_argument("directory", type=pathlib.Path, help="new directory")
    parser.add_argument("--layers", type=int, default=0, help="other than the built-in number")
    args = parser.parse_args()
    print(f"{write(args.family, args.layers, args.directory) / 1e9:.2f} GB in {args.directory}")


if __name__ == "__main__":
    main()
