"""The forward pass of model.py for a GPU: the same parameters, fused attention, bf16 products.

Norms, gates and the residual stream stay in float32; products are bf16 under autocast. On a CPU, and in
float32, it gives what model.py gives (train_device_test.py compares them).
"""
from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor

from model import FlexOlmo, Moe, Norm


def precision(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager:
    """The context that products are made in."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def norm(x: Tensor, by: Norm) -> Tensor:
    """RMS norm in float32, whatever comes in."""
    y = x.float()
    return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + by.eps) * by.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotation of [B, T, heads, d]."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Causal attention of [B, heads, T, d]."""
    if hasattr(F, "scaled_dot_product_attention"):  # from PyTorch 2.0 on
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask
    return torch.softmax(scores.float(), -1).to(v.dtype) @ v


def mix(moe: Moe, x: Tensor, logits_out: list[Tensor] | None) -> Tensor:
    """The layer's experts, all of them evaluated."""
    if len(moe.experts) == 1:
        return moe.experts[0](x)
    with torch.autocast(x.device.type, enabled=False):
        logits = F.linear(x.float(), moe.gate.weight, moe.gate.bias)
    p = torch.softmax(logits, -1)
    if moe.k < len(moe.experts):
        p = p * torch.zeros_like(p).scatter_(-1, p.topk(moe.k, -1).indices, 1.0)
    if logits_out is not None:
        logits_out.append(logits)
    return sum(p[..., e, None] * expert(x).float() for e, expert in enumerate(moe.experts))


def hidden(model: FlexOlmo, ids: Tensor, logits_out: list[Tensor] | None = None) -> Tensor:
    """Final normalised hidden states [B, T, H]."""
    rope, mask = model._table(ids.shape[1])
    cos, sin, mask = rope[0].to(ids.device), rope[1].to(ids.device), mask.to(ids.device)
    x = model.model.embed_tokens(ids).float()
    b, t, _ = x.shape
    for layer in model.model.layers:
        a = layer.self_attn
        q, k, v = a.q_proj(x), a.k_proj(x), a.v_proj(x)
        q, k = norm(q, a.q_norm), norm(k, a.k_norm)
        q = rotate(q.view(b, t, a.heads, a.dim), cos, sin).to(v.dtype).transpose(1, 2)
        k = rotate(k.view(b, t, a.kv_heads, a.dim), cos, sin).to(v.dtype).transpose(1, 2)
        v = v.view(b, t, a.kv_heads, a.dim).transpose(1, 2)
        if a.heads != a.kv_heads:
            k, v = (y.repeat_interleave(a.heads // a.kv_heads, 1) for y in (k, v))
        out = attend(q, k, v, mask[None]).transpose(1, 2).reshape(b, t, -1)
        x = x + norm(a.o_proj(out), layer.post_attention_layernorm)
        x = x + norm(mix(layer.mlp, x, logits_out), layer.post_feedforward_layernorm)
    return norm(x, model.model.norm)


def loss(model: FlexOlmo, ids: Tensor, bf16: bool, z_loss: float = 0.0) -> Tensor:
    """Mean next-token cross-entropy of windows [B, T + 1], and the z-loss of the gates."""
    logits: list[Tensor] = []
    with precision(ids.device, bf16):
        scores = model.lm_head(hidden(model, ids[:, :-1], logits))
    out = F.cross_entropy(scores.float().flatten(0, 1), ids[:, 1:].reshape(-1))
    for each in logits:
        out = out + z_loss * each.logsumexp(-1).square().mean()
    return out
