"""The `flex_olmo` forward pass in plain PyTorch, with Hugging Face's tensor names.

Block (norms after the sub-layers, so attention, gate and experts see the raw residual stream):

    x = x + RMS(Attn(x); post_attention_layernorm)
    x = x + RMS(MoE(x);  post_feedforward_layernorm)

q and k are RMS-normalised over the whole projected vector before the head split; rope is half-split.
MoE: softmax over all gate logits, keep the k largest, y = sum p_e E_e(x).
"""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import safetensors_io
from functions import HeadLoss, RmsNorm, Rope


@dataclass
class Config:
    """The fields of config.json that the forward pass needs."""
    vocab_size: int = 8192
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    num_experts: int = 1
    num_experts_per_tok: int = 1
    rope_theta: float = 500000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 1024
    norm_topk_prob: bool = False
    eos_token_id: int = 0
    pad_token_id: int = 1

    @classmethod
    def load(cls, path: Path) -> "Config":
        """Read config.json, ignoring keys that this forward pass does not use."""
        raw = json.loads(Path(path).read_text())
        return cls(**{k: raw[k] for k in cls.__dataclass_fields__ if k in raw})

    def to_json(self) -> dict:
        """config.json as Hugging Face's FlexOlmoForCausalLM writes it."""
        return {"architectures": ["FlexOlmoForCausalLM"], "attention_bias": False,
                "attention_dropout": 0.0, "bos_token_id": None, "hidden_act": "silu",
                "initializer_range": 0.02, "model_type": "flex_olmo", "output_router_logits": False,
                "rope_scaling": None, "router_aux_loss_coef": 0.0, "tie_word_embeddings": False,
                "torch_dtype": "bfloat16", "transformers_version": "4.57.1", "use_cache": True,
                **self.__dict__}


class Norm(nn.Module):
    """RMS norm with a weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return RmsNorm.apply(x, self.weight, self.eps)


class Attention(nn.Module):
    """Causal multi-head attention with QK norm over the whole projected vector."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads, self.kv_heads = c.num_attention_heads, c.num_key_value_heads
        self.dim = c.hidden_size // self.heads
        self.q_proj = nn.Linear(c.hidden_size, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, c.hidden_size, bias=False)
        self.q_norm = Norm(self.heads * self.dim, c.rms_norm_eps)
        self.k_norm = Norm(self.kv_heads * self.dim, c.rms_norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        b, t, _ = x.shape

        def split(y: Tensor, heads: int) -> Tensor:
            return y.view(b, t, heads, self.dim)

        q = Rope.apply(split(self.q_norm(self.q_proj(x)), self.heads), *rope).transpose(1, 2)
        k = Rope.apply(split(self.k_norm(self.k_proj(x)), self.kv_heads), *rope).transpose(1, 2)
        v = split(self.v_proj(x), self.kv_heads).transpose(1, 2)
        if self.heads != self.kv_heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, 1)
            v = v.repeat_interleave(self.heads // self.kv_heads, 1)
        q, k, v = (y.reshape(b * self.heads, t, self.dim) for y in (q, k, v))
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=self.dim ** -0.5)
        out = torch.bmm(torch.softmax(scores, -1), v)
        out = out.view(b, self.heads, t, self.dim).transpose(1, 2).reshape(b, t, -1)
        return self.o_proj(out)


class Expert(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    """One logit row per expert and an optional bias (stored by modules, absent in a backbone)."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(c.num_experts, c.hidden_size))
        self.bias = nn.Parameter(torch.zeros(c.num_experts), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass
class Routing:
    """What the gates did in one forward pass: per layer the logits and the kept weights."""
    logits: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    keep_inputs: bool = False


class Moe(nn.Module):
    """Softmax over all logits, top k, weighted sum (every expert is evaluated: E is small here)."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.k, self.normalise = c.num_experts_per_tok, c.norm_topk_prob
        self.gate = Gate(c)
        self.experts = nn.ModuleList(Expert(c) for _ in range(c.num_experts))

    def forward(self, x: Tensor, routing: Routing | None = None) -> Tensor:
        if routing is not None and routing.keep_inputs:
            routing.inputs.append(x)
        if len(self.experts) == 1:
            return self.experts[0](x)
        logits = self.gate(x)
        p = torch.softmax(logits, -1)
        k = min(self.k, len(self.experts))
        if k < len(self.experts):
            top = p.topk(k, -1).indices
            p = p * torch.zeros_like(p).scatter_(-1, top, 1.0)
        if self.normalise:
            p = p / p.sum(-1, keepdim=True)
        if routing is not None:
            routing.logits.append(logits)
            routing.weights.append(p)
        return sum(p[..., e, None] * expert(x) for e, expert in enumerate(self.experts))


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = Moe(c)
        self.post_attention_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.post_feedforward_layernorm = Norm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor,
                routing: Routing | None) -> Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(x, rope, mask))
        return x + self.post_feedforward_layernorm(self.mlp(x, routing))


class FlexOlmo(nn.Module):
    """The whole model; `state_dict` names are those of the checkpoint (see `tensors`)."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.config = c
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.model.layers = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.model.norm = Norm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        self._tables: dict[int, tuple] = {}

    def _table(self, t: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """cos and sin [t, 1, d / 2] and the causal mask [1, t, t] for t positions."""
        if t not in self._tables:
            d = self.config.hidden_size // self.config.num_attention_heads
            inv = 1.0 / self.config.rope_theta ** (torch.arange(0, d, 2).float() / d)
            angle = torch.outer(torch.arange(t).float(), inv)[:, None, :]
            mask = torch.full((1, t, t), -1e30).triu_(1)
            self._tables[t] = ((angle.cos(), angle.sin()), mask)
        return self._tables[t]

    def hidden(self, ids: Tensor, routing: Routing | None = None) -> Tensor:
        """Final normalised hidden states [B, T, H]."""
        rope, mask = self._table(ids.shape[1])
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, rope, mask, routing)
        return self.model.norm(x)

    def forward(self, ids: Tensor, routing: Routing | None = None) -> Tensor:
        """Logits [B, T, V]."""
        return self.lm_head(self.hidden(ids, routing))

    def loss(self, ids: Tensor, scale: float, routing: Routing | None = None) -> Tensor:
        """`scale` times the summed next-token cross-entropy of windows [B, T + 1]."""
        hidden = self.hidden(ids[:, :-1], routing).flatten(0, 1)
        return HeadLoss.apply(hidden, self.lm_head.weight, ids[:, 1:].reshape(-1), scale, 512)

    def tensors(self) -> dict[str, Tensor]:
        """Checkpoint tensors by name (gate biases are not part of a Hugging Face checkpoint)."""
        return {n: p for n, p in self.state_dict().items() if not n.endswith("gate.bias")}

    @classmethod
    def from_dir(cls, path: Path) -> "FlexOlmo":
        """Load a Hugging Face directory with one model.safetensors."""
        model = cls(Config.load(Path(path) / "config.json"))
        state = safetensors_io.read(Path(path) / "model.safetensors")
        missing, unexpected = model.load_state_dict(state, strict=False)
        bad = [m for m in missing if not m.endswith("gate.bias")] + list(unexpected)
        if bad:
            raise ValueError(f"{path}: tensors do not match: {bad[:4]}")
        return model
