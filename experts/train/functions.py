"""Hand-written autograd functions that keep a CPU training step short of memory traffic."""
from __future__ import annotations

import torch


class RmsNorm(torch.autograd.Function):
    """y = w * x / sqrt(mean(x^2) + eps) over the last dimension."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        inv = torch.rsqrt(torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
                          .mul_(1.0 / x.shape[-1]).add_(eps))
        unit = x * inv
        ctx.save_for_backward(unit, inv, weight)
        return unit * weight

    @staticmethod
    def backward(ctx, grad):
        unit, inv, weight = ctx.saved_tensors
        size = unit.shape[-1]
        product = grad * unit
        dweight = product.reshape(-1, size).sum(0) if ctx.needs_input_grad[1] else None
        dot = torch.matmul(product, weight).unsqueeze_(-1).mul_(-1.0 / size)
        dx = (grad * weight).addcmul_(unit, dot).mul_(inv)
        return dx, dweight, None


class Rope(torch.autograd.Function):
    """Half-split rotation of [B, T, heads, d]; cos and sin are [T, 1, d / 2]."""

    @staticmethod
    def rotate(x, cos, sin):
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        out = torch.empty_like(x)
        torch.mul(a, cos, out=out[..., :half]).addcmul_(b, sin, value=-1.0)
        torch.mul(b, cos, out=out[..., half:]).addcmul_(a, sin)
        return out

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return Rope.rotate(x, cos, sin)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return Rope.rotate(grad, cos, -sin), None, None


class HeadLoss(torch.autograd.Function):
    """Summed cross-entropy of `hidden @ weight.T` against targets, a chunk of rows at a time.

    The gradients are computed in the forward pass, so no logits are kept.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets, scale, chunk):
        need_hidden = hidden.requires_grad  # false in evaluation: then only the loss is computed
        dhidden = torch.empty_like(hidden) if need_hidden else None
        need_weight = need_hidden and weight.requires_grad
        dweight = torch.zeros_like(weight) if need_weight else None
        total = 0.0
        for at in range(0, hidden.shape[0], chunk):
            rows, want = hidden[at:at + chunk], targets[at:at + chunk, None]
            logits = rows @ weight.t()
            top = logits.amax(1, keepdim=True)
            picked = logits.gather(1, want)
            logits.sub_(top).exp_()
            norm = logits.sum(1, keepdim=True)
            total += float((norm.log() + top - picked).double().sum())
            if not need_hidden:
                continue
            logits.mul_(scale / norm)
            logits.scatter_add_(1, want, torch.full_like(picked, -scale))
            torch.mm(logits, weight, out=dhidden[at:at + chunk])
            if need_weight:
                dweight.addmm_(logits.t(), rows)
        ctx.save_for_backward(dhidden, dweight)
        return torch.tensor(total * scale)

    @staticmethod
    def backward(ctx, grad):
        dhidden, dweight = ctx.saved_tensors
        return dhidden, dweight, None, None, None
