"""Muon for matrices inside the blocks, AdamW for everything else, on tensors shared by workers."""
from __future__ import annotations

import torch
from torch import Tensor

# Coefficients of the odd quintic iterations that drive all singular values towards 1.
POLAR = ((8.28721201814563, -23.595886519098837, 17.300387312530933),
         (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
         (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
         (3.3184196573706015, -2.488488024314874, 0.51004894012372))


def orthogonalise(stack: Tensor) -> Tensor:
    """Approximate polar factor of each matrix of [n, rows, cols]."""
    tall = stack.shape[1] > stack.shape[2]
    x = stack.transpose(1, 2) if tall else stack
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) * 1.02 + 1e-7)
    for a, b, c in POLAR:
        gram = torch.bmm(x, x.transpose(1, 2))
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return x.transpose(1, 2) if tall else x


class Muon:
    """Momentum, orthogonalised per matrix; matrices of one shape are handled together."""

    def __init__(self, params: dict[str, Tensor], lr: float, momentum: float = 0.95,
                 weight_decay: float = 0.0) -> None:
        self.params, self.lr, self.momentum, self.decay = params, lr, momentum, weight_decay
        self.state = {n: torch.zeros_like(p) for n, p in params.items()}
        self.groups: dict[tuple[int, ...], list[str]] = {}
        for name, p in params.items():
            self.groups.setdefault(tuple(p.shape), []).append(name)

    @torch.no_grad()
    def step(self, grads: dict[str, Tensor], factor: float) -> None:
        """One update with the learning rate scaled by `factor`."""
        lr = self.lr * factor
        for shape, names in self.groups.items():
            updates = []
            for name in names:
                buf = self.state[name].mul_(self.momentum).add_(grads[name], alpha=1 - self.momentum)
                updates.append(torch.lerp(grads[name], buf, self.momentum))  # Nesterov
            ortho = orthogonalise(torch.stack(updates))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for name, update in zip(names, ortho):
                self.params[name].mul_(1 - lr * self.decay).add_(update, alpha=-lr * scale)


class AdamW:
    """Plain AdamW with a learning rate per tensor."""

    def __init__(self, params: dict[str, Tensor], lrs: dict[str, float],
                 betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-10,
                 weight_decay: float = 0.0) -> None:
        self.params, self.lrs, self.betas, self.eps = params, lrs, betas, eps
        self.decay, self.count = weight_decay, 0
        self.state = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in params.items()}

    @torch.no_grad()
    def step(self, grads: dict[str, Tensor], factor: float) -> None:
        """One update with the learning rates scaled by `factor`."""
        self.count += 1
        b1, b2 = self.betas
        fix1, fix2 = 1 - b1 ** self.count, 1 - b2 ** self.count
        for name, p in self.params.items():
            grad, (m, v) = grads[name], self.state[name]
            m.mul_(b1).add_(grad, alpha=1 - b1)
            v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
            lr = self.lrs[name] * factor
            if self.decay and p.dim() > 1:
                p.mul_(1 - lr * self.decay)
            p.addcdiv_(m, (v / fix2).sqrt_().add_(self.eps), value=-lr / fix1)
