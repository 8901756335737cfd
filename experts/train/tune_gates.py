"""Stage 5: gate rows of all modules fitted together; the experts stay frozen.

    python3 tune_gates.py --corpora ../../../shared/corpora --work ~/.cache/chimera-train

Which of {public, legal, bio, finance} is this token of? The public logit is 0, as in the deployment, so
the fitted rows and biases are gate rows, and with any subset of the modules loaded the softmax is the
posterior over that subset. Texts are of the training sets: passages, short prompts and changes of the
domain (gate_texts.py); gate inputs are those of the composition with all modules as they were. Minimised
by L-BFGS is, over all layers at once,

    a mean_l CE(p_l) + b CE(mean_l p_l) + c CE(softmax(K mean_{l, tokens} p_l) of a prompt)

with p_l the posterior in layer l: each layer is to tell, the layers together are to tell (the first of
them cannot alone), and a prompt as a whole is to have its own module first. Writes
`<work>/<domain>.tuned.pt`, which `export.py` prefers. A module without `<work>/<domain>.final.pt` is
taken as stored.
"""
from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor

import corpus
import gate_texts
from compose import finished_module, public_model, with_modules
from gate_texts import KINDS, Window, load_windows  # noqa: F401  (train_device.py takes it from here)
from model import FlexOlmo, Routing

CLASSES = len(corpus.DOMAINS)
BATCH_TOKENS = 2048

# How much each kind of window counts, and in it the tokens of each domain. In passages more those of
# public text, which loses where a module takes what is not its own, and of bio, the hardest to tell.
WEIGHT = {"long": 0.55, "prompt": 0.20, "change": 0.25}
CLASS_WEIGHT = {"long": (2.3, 1.2, 1.9, 1.2), "prompt": (0.8, 1.0, 1.0, 1.0), "change": (1.0,) * 4}
EACH_LAYER, TOGETHER, PROMPTS, SHARPNESS = 1.0, 0.5, 1.2, 12.0  # a, b, c and K above
# Prompts as a whole: nothing is lost where a module takes six words of general text, and the few long
# ones are to be heard.
PROMPT_CLASS_WEIGHT = (0.7, 1.0, 1.0, 1.0)
MANY_TOKENS, MANY_WEIGHT = 40, 3.0
RIDGE = 1e-5  # pulls rows (in units of the inputs' deviations) to where they were


@torch.no_grad()
def gate_inputs(model: FlexOlmo, windows: list[Window]) -> list[Tensor]:
    """Per layer the gate inputs of all tokens of all windows, in their order."""
    parts: list[list[Tensor]] = [[torch.empty(0)] * len(windows)
                                 for _ in range(model.config.num_hidden_layers)]
    order = sorted(range(len(windows)), key=lambda i: len(windows[i].ids))
    while order:
        rows = max(1, BATCH_TOKENS // len(windows[order[min(len(order), 32) - 1]].ids))
        batch, order = order[:rows], order[rows:]
        ids = torch.zeros(len(batch), max(len(windows[i].ids) for i in batch), dtype=torch.long)
        for row, i in enumerate(batch):
            ids[row, :len(windows[i].ids)] = torch.tensor(windows[i].ids)
        routing = Routing(keep_inputs=True)
        model.hidden(ids, routing)
        for layer, x in enumerate(routing.inputs):
            for row, i in enumerate(batch):
                parts[layer][i] = x[row, :len(windows[i].ids)].clone()
    return [torch.cat(p) for p in parts]


@dataclass
class Samples:
    """Tokens that are fitted, or counted in a prompt's share (weight 0). n of them, m prompts."""
    x: list[Tensor]        # per layer [n, hidden], in units of `scale`
    scale: list[Tensor]    # per layer [hidden]: deviation of each input
    label: Tensor          # [n]
    weight: Tensor         # [n], sums to 1
    prompt: Tensor         # [n]: number of the prompt it is of, or -1
    prompt_label: Tensor   # [m]
    prompt_weight: Tensor  # [m], sums to 1


def samples(inputs: list[Tensor], windows: list[Window]) -> Samples:
    """Labelled tokens with their weights: kinds by WEIGHT, in each the domains by
    CLASS_WEIGHT."""
    label = torch.cat([torch.tensor(w.label) for w in windows])
    kind = torch.cat([torch.full((len(w.ids),), KINDS.index(w.kind)) for w in windows])
    number, labels, counts = torch.full((len(windows),), -1), [], []
    for i, window in enumerate(windows):
        if window.kind == "prompt":
            number[i] = len(labels)
            labels.append(window.label[-1])
            counts.append(PROMPT_CLASS_WEIGHT[window.label[-1]]
                          * (MANY_WEIGHT if len(window.ids) > MANY_TOKENS else 1.0))
    prompt = torch.cat([number[i].repeat(len(w.ids)) for i, w in enumerate(windows)])
    weight = torch.zeros(len(label))
    for k, name in enumerate(KINDS):
        for c in range(CLASSES):
            of = (kind == k) & (label == c)
            weight[of] = WEIGHT[name] * CLASS_WEIGHT[name][c] / max(1, int(of.sum()))
    # Of a prompt also the end-of-text token before it: of no domain, but it counts in the share.
    keep = (label >= 0) | (prompt >= 0)
    scale = [x[keep].std(0) for x in inputs]
    return Samples([x[keep] / s for x, s in zip(inputs, scale)], scale, label[keep].clamp_min(0),
                   weight[keep] / weight[keep].sum(), prompt[keep], torch.tensor(labels),
                   torch.tensor(counts) / sum(counts))


def cross_entropy(logp: Tensor, of: Samples) -> Tensor:
    """Weighted mean over all tokens, of log-probabilities [n, classes]."""
    return -(logp.gather(1, of.label[:, None]).squeeze(1) * of.weight).sum()


def objective(rows: list[Tensor], biases: list[Tensor], of: Samples) -> tuple[Tensor, float]:
    """The loss without its ridge, and the share of prompts whose own class is first."""
    mixed, alone = torch.zeros(len(of.label), CLASSES), torch.zeros(())
    for x, row, bias in zip(of.x, rows, biases):
        logp = torch.log_softmax(F.pad(x @ row.t() + bias, (1, 0)), -1)
        alone = alone + cross_entropy(logp, of) / len(rows)
        mixed = mixed + logp.exp() / len(rows)
    together = cross_entropy(mixed.clamp_min(1e-6).log(), of)
    inside = of.prompt >= 0
    count = torch.bincount(of.prompt[inside], minlength=len(of.prompt_label))
    share = torch.zeros(len(of.prompt_label), CLASSES).index_add_(0, of.prompt[inside], mixed[inside])
    share = share / count[:, None]
    prompts = F.cross_entropy(SHARPNESS * share, of.prompt_label, reduction="none") @ of.prompt_weight
    first = float((share.argmax(1) == of.prompt_label).float().mean())
    return EACH_LAYER * alone + TOGETHER * together + PROMPTS * prompts, first


def fit_modules(public: FlexOlmo, modules: list[dict[str, Tensor]], windows: list[Window],
                steps: int) -> list[dict[str, Tensor]]:
    """The modules with fitted rows and biases."""
    names = [(f"layers.{n}.gate.weight", f"layers.{n}.gate.bias")
             for n in range(public.config.num_hidden_layers)]
    of = samples(gate_inputs(with_modules(public, modules), windows), windows)
    rows = [torch.cat([m[w].float() for m in modules]) * s for (w, _), s in zip(names, of.scale)]
    start = [row.clone() for row in rows]
    biases = [torch.cat([m[b].float() for m in modules]).clone() for _, b in names]
    fitted = [p.requires_grad_(True) for p in (*rows, *biases)]
    optimizer = torch.optim.LBFGS(fitted, max_iter=steps, history_size=20,
                                  line_search_fn="strong_wolfe")
    told: list[tuple[float, float]] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss, first = objective(rows, biases, of)
        told.append((float(loss), first))
        loss = loss + RIDGE * sum((r - s).square().sum() for r, s in zip(rows, start))
        loss.backward()
        return loss

    optimizer.step(closure)
    print(f"{len(of.label)} tokens, {len(of.prompt_label)} prompts: loss {told[0][0]:.3f} -> "
          f"{told[-1][0]:.3f}, own module first in {100 * told[0][1]:.0f} -> {100 * told[-1][1]:.0f} % "
          f"of the prompts, {len(told)} evaluations", flush=True)
    out = []
    for i, module in enumerate(modules):
        fresh = dict(module)
        for layer, (w, b) in enumerate(names):
            fresh[w] = (rows[layer].detach()[i:i + 1] / of.scale[layer]).clone()
            fresh[b] = biases[layer].detach()[i:i + 1].clone()
        out.append(fresh)
    return out


def moved(before: dict[str, Tensor], fitted: dict[str, Tensor], way: float,
          prior: float) -> dict[str, Tensor]:
    """The module part of the way from its rows before to the fitted ones, its log-odds raised by `prior`.

    What fits the classes best is not what the experts were trained with: a part of the way tells prompts
    nearly as well, and keeps more of the gain (README, "Gates together").
    """
    out = {name: torch.lerp(before[name].float(), value, way) if ".gate." in name else value
           for name, value in fitted.items()}
    return {name: value + prior if name.endswith("gate.bias") else value for name, value in out.items()}


def main() -> None:
    """Fit every layer and write the tuned modules."""
    from tokenizer import Tokenizer
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=Path, default=corpus.DEFAULT_CORPORA)
    parser.add_argument("--work", type=Path, default=corpus.DEFAULT_WORK)
    parser.add_argument("--long", type=int, default=100, help="passages per domain")
    parser.add_argument("--prompts", type=int, default=1220, help="per domain")
    parser.add_argument("--changes", type=int, default=140, help="from each domain")
    parser.add_argument("--length", type=int, default=256, help="tokens of a window at most")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--way", type=float, default=0.75, metavar="0..1",
                        help="how far rows and biases go from where they were to where they fit best")
    parser.add_argument("--prior", type=float, nargs=3, default=(0.1, 0.1, -0.1), metavar="LOG_ODDS",
                        help="added to the biases of each module afterwards; below 0 the backbone keeps more")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tok = Tokenizer(corpus.REPO / "experts" / "backbone" / "tokenizer.json")
    drawn = gate_texts.pools(args.corpora, args.seed, 150, {})
    windows = gate_texts.windows(tok, drawn, {"long": args.long, "prompt": args.prompts,
                                              "change": args.changes}, args.length, args.seed)
    modules = [finished_module(args.work, d) for d in corpus.EXPERTS]
    tuned = fit_modules(public_model(args.work), modules, windows, args.steps)
    args.work.mkdir(parents=True, exist_ok=True)
    for domain, before, module, prior in zip(corpus.EXPERTS, modules, tuned, args.prior):
        torch.save(moved(before, module, args.way, prior), args.work / f"{domain}.tuned.pt")


if __name__ == "__main__":
    main()
