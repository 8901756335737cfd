"""Surveys a running daemon: what the demo's modules gain by kind of text, and whom the gates choose.

    experts/train/survey.py --corpora ../shared/corpora [--unseen DIR] [--report]

Asks the daemon at the usual endpoints (or --serve, --control), which runs the demo's backbone; its
composition is put back at the end. Measured are

* bits per byte of every kind: each source of the valid sets, and each file DOMAIN.KIND.txt of --unseen,
  texts from sources that nothing was trained on; with no module, each alone, all, and all but one;
* shares with all modules loaded, by length of the prompt, and how often a prompt's own module has the
  largest share, the backbone's counted like a module's;
* the lag: tokens after a change of the domain until, over four tokens, the new domain's share is larger
  than the old one's.

Writes survey.json beside this file, and with --report the end of experts/EVALUATION.md. Needs
python3-zmq. The same daemon and texts give the same numbers.
"""
from __future__ import annotations

import argparse
import itertools
import json
import math
import pathlib
import sys
from typing import Any

import corpus
import survey_report
from passages import evenly, starts

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients" / "python"))
from chimera_client import Client  # noqa: E402

DOMAINS, MODULES = corpus.DOMAINS, corpus.EXPERTS
ROWS: dict[str, tuple[str, ...]] = {
    "backbone": (), **{f"+{m}": (m,) for m in MODULES}, "all three": MODULES,
    **{f"all but {m}": tuple(n for n in MODULES if n != m) for m in MODULES}}
PROMPTS, WORDS, SEED = 24, (6, 15, 50), 1
AROUND = 4        # tokens that a share after a change is taken over
PIECE = 1600      # bytes that are scored together


def pieces(text: str, count: int) -> list[str]:
    """At most `count` pieces of a text, from beginnings of sentences, at even distances."""
    begins = [at for at in starts(text) if at + PIECE <= len(text)] or [0]
    picked = [begins[i * len(begins) // count] for i in range(min(count, len(begins)))]
    return [text[at:at + PIECE] for at in picked]


def kinds(corpora: pathlib.Path, unseen: pathlib.Path | None, size: int) -> list[dict[str, Any]]:
    """Every kind with its pieces: at most `size` bytes, spread over its texts."""
    out = []
    for domain in DOMAINS:
        by_source: dict[str, list[str]] = {}
        for record in corpus.records(corpora, domain, "valid"):
            by_source.setdefault(record["source"], []).append(record["text"])
        if unseen:
            for path in sorted(unseen.glob(f"{domain}.*.txt")):
                by_source["unseen " + path.stem.split(".", 1)[1]] = [path.read_text(encoding="utf-8")]
        for source, texts in sorted(by_source.items()):
            most = max(1, size // PIECE)
            each = -(-most // len(texts))
            cut = [p for text in texts for p in pieces(text, each)]
            cut = [cut[i * len(cut) // most] for i in range(most)] if len(cut) > most else cut
            out.append({"domain": domain, "kind": source.removeprefix("unseen "),
                        "unseen": source.startswith("unseen "), "pieces": cut})
    return out


class Survey:
    """Questions to one daemon."""

    def __init__(self, client: Client, corpora: pathlib.Path, experts: pathlib.Path) -> None:
        self.client, self.corpora, self.experts = client, corpora, experts.resolve()
        self.passages: dict[str, list[str]] = {}

    def compose(self, modules: tuple[str, ...]) -> None:
        self.client.apply({"top_k": 2, "modules": [
            {"path": str(self.experts / m)} for m in modules]})

    def bits(self, each: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of every kind: bytes, and per row nats and the shares."""
        out = [{key: kind[key] for key in ("domain", "kind", "unseen")} |
               {"bytes": sum(len(p.encode()) for p in kind["pieces"]), "rows": {}} for kind in each]
        for row, modules in ROWS.items():
            self.compose(modules)
            for kind, told in zip(each, out):
                scores = [self.client.score(piece) for piece in kind["pieces"]]
                tokens = sum(s.count for s in scores)
                told["rows"][row] = {
                    "nats": sum(s.nats for s in scores),
                    "shares": {m: sum(s.provenance["modules"][m]["share"] * s.count
                                      for s in scores) / tokens for m in modules}}
            print(f"{row}: scored", flush=True)
        return out

    def prompts(self) -> dict[str, dict[str, list[dict[str, float]]]]:
        """By length and domain the shares of every prompt; "questions" are those of prompts.txt."""
        self.compose(MODULES)
        out: dict[str, dict[str, list[dict[str, float]]]] = {}
        for domain in DOMAINS:
            texts: dict[str, list[str]] = {}
            for record in corpus.records(self.corpora, domain, "valid"):
                texts.setdefault(record["source"], []).append(record["text"])
            passages = evenly(texts, PROMPTS, max(WORDS), SEED)
            sets = {str(n): [" ".join(p.split()[:n]) for p in passages] for n in WORDS}
            lines = (self.corpora / domain / "prompts.txt").read_text(encoding="utf-8").splitlines()
            lines = [line for line in lines if line.strip()]
            sets["as typed"] = [lines[i * len(lines) // PROMPTS] for i in range(PROMPTS)]
            for length, prompts in sets.items():
                out.setdefault(length, {})[domain] = [self.shares(p) for p in prompts]
            self.passages[domain] = passages
        return out

    def shares(self, text: str) -> dict[str, float]:
        provenance = self.client.score(text).provenance
        return {"backbone": provenance["backbone"]["share"],
                **{m: provenance["modules"][m]["share"] for m in MODULES}}

    def lags(self, each: int = 4) -> list[dict[str, Any]]:
        """The lag of changes between any two domains; null where it never turned."""
        out = []
        for old, new in itertools.permutations(range(len(DOMAINS)), 2):
            for i in range(each):
                first = self.passages[DOMAINS[old]][i * 5]
                text = first + "\n\n" + self.passages[DOMAINS[new]][i * 5 + 2]
                begin = 1 + len(self.client.tokenize(first))
                by_token = self.shares_by_token(text)[begin:]
                out.append({"from": DOMAINS[old], "to": DOMAINS[new],
                            "lag": turn(by_token, old, new)})
        return out

    def shares_by_token(self, text: str) -> list[list[float]]:
        """[token][domain]: the mean of the kept weights over the layers. Each of the demo's modules has
        one expert a layer, and so has the backbone: slot i is that of domain i."""
        layers = self.client.score(text, routing=True).routing["layers"]
        out = []
        for token in range(len(layers[0]["ids"])):
            sums = [0.0] * len(DOMAINS)
            for layer in layers:
                weights = layer["weights"][token]
                for slot, weight in zip(layer["ids"][token], weights):
                    if slot >= 0:
                        sums[slot] += weight / sum(weights) / len(layers)
            out.append(sums)
        return out


def turn(by_token: list[list[float]], old: int, new: int) -> int | None:
    """The first token from which on, over AROUND tokens, `new` has more than `old`."""
    for at in range(len(by_token) - AROUND + 1):
        part = by_token[at:at + AROUND]
        if sum(t[new] for t in part) > sum(t[old] for t in part):
            return at
    return None


def main() -> None:
    """Asks, writes the answers, and the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=pathlib.Path, default=corpus.DEFAULT_CORPORA)
    parser.add_argument("--unseen", type=pathlib.Path, help="folder of DOMAIN.KIND.txt")
    parser.add_argument("--experts", type=pathlib.Path, default=ROOT / "experts", help="folder of the modules")
    parser.add_argument("--serve"), parser.add_argument("--control")
    parser.add_argument("--bytes", type=int, default=9600, help="of each kind")
    parser.add_argument("--only-gates", action="store_true", help="no bits per byte")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).with_name("survey.json"))
    parser.add_argument("--report", action="store_true", help="into experts/EVALUATION.md, too")
    args = parser.parse_args()
    with Client(serve=args.serve, control=args.control, timeout=600) as client:
        survey = Survey(client, args.corpora, args.experts)
        before = client.epochs()["history"][-1]["epoch"]
        try:
            told: dict[str, Any] = {"prompts": survey.prompts(), "lags": survey.lags()}
            if not args.only_gates:
                told["kinds"] = survey.bits(kinds(args.corpora, args.unseen, args.bytes))
        finally:
            client.rollback(before)
    args.out.write_text(json.dumps(rounded(told), indent=1) + "\n", encoding="utf-8")
    print("\n".join(survey_report.report(told)))
    if args.report:
        survey_report.put_into(ROOT / "experts" / "EVALUATION.md", told)


def rounded(value: Any) -> Any:
    """Floats to six digits: what is stored is to be read, too."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else value
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
