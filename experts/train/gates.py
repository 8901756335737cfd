"""Gate rows by linear discriminant analysis: domain text against public text, no joint training.

The public expert's logit is 0. A domain's row is the log-odds of "domain" against "public" for
Gaussian classes with one covariance (the public one), so the softmax over several independently
made rows is the posterior of all classes together.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model import FlexOlmo, Routing


class Windows(Protocol):
    """Windows of text: data.Stream, or the pieces of train_device.py."""

    def batch(self, step: int, micro: int, rows: int, length: int) -> np.ndarray: ...


@dataclass
class Stats:
    """Mean and covariance of the gate input of every layer."""
    mean: list[Tensor]
    cov: list[Tensor]


@torch.no_grad()
def collect(model: FlexOlmo, stream: Windows, batches: int, length: int = 512) -> Stats:
    """Statistics of the dense public model's gate inputs over `batches` x 2 windows."""
    layers = model.config.num_hidden_layers
    sums = [torch.zeros(model.config.hidden_size, dtype=torch.float64) for _ in range(layers)]
    outer = [torch.zeros(s.shape[0], s.shape[0], dtype=torch.float64) for s in sums]
    count = 0
    for i in range(batches):
        routing = Routing(keep_inputs=True)
        model.hidden(torch.from_numpy(stream.batch(i, 0, 2, length))[:, :-1], routing)
        for layer, x in enumerate(routing.inputs):
            x = x.flatten(0, 1)
            sums[layer] += x.sum(0).double()
            outer[layer] += (x.t() @ x).double()
        count += routing.inputs[0].shape[0] * routing.inputs[0].shape[1]
    mean = [s / count for s in sums]
    return Stats(mean, [o / count - torch.outer(m, m) for o, m in zip(outer, mean)])


def discriminant(public: Stats, domain: Stats, layer: int, ridge: float = 0.02,
                 tighten: float = 0.0) -> tuple[Tensor, float]:
    """Gate row and bias (never above 0) of one layer; `tighten` is subtracted from the log-odds."""
    cov, mu_p, mu_d = public.cov[layer], public.mean[layer], domain.mean[layer]
    pooled = 0.5 * (cov + domain.cov[layer])
    size = cov.shape[0]
    inverse = torch.linalg.inv(pooled + ridge * pooled.trace() / size
                               * torch.eye(size, dtype=torch.float64))
    row = inverse @ (mu_d - mu_p)
    middle = 0.5 * (mu_p + mu_d)
    bias = -float(row @ middle) - tighten
    if bias > 0:  # move the constant into the row, along the direction nearest to constant
        constant = inverse @ middle
        row = row + bias * constant / (middle @ constant)
        bias = 0.0
    return row.float(), bias
