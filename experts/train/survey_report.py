"""The tables of a survey, for experts/EVALUATION.md and README. Standard library only."""
from __future__ import annotations

import math
import pathlib
from typing import Any

import corpus

DOMAINS, MODULES = corpus.DOMAINS, corpus.EXPERTS
BEGIN = "## Own sources and unseen ones"  # where the survey's part of the document begins
LAG = 12                      # tokens within which the share is to turn
LARGEST = {"6": 20, "50": 23}  # of 24 prompts, at least
GENERAL = 0.35                # share of a module on general prompts, at most


def bits(kinds: list[dict[str, Any]], row: str) -> float:
    """Bits per byte of several kinds together."""
    return sum(k["rows"][row]["nats"] for k in kinds) / math.log(2) / sum(k["bytes"] for k in kinds)


def change(kinds: list[dict[str, Any]], row: str) -> float:
    """Of a row against the backbone: below 0 is a gain."""
    return bits(kinds, row) / bits(kinds, "backbone") - 1


def percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


def table(head: list[str], rows: list[list[str]], text: int = 1) -> list[str]:
    """Markdown; the first `text` columns hold words."""
    rule = ["---"] * text + ["---:"] * (len(head) - text)
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]


def of(kinds: list[dict[str, Any]], domain: str, unseen: bool) -> list[dict[str, Any]]:
    return [k for k in kinds if k["domain"] == domain and k["unseen"] == unseen]


def summary(kinds: list[dict[str, Any]]) -> list[str]:
    """Own sources beside unseen ones: the table of README."""
    rows = []
    for m in MODULES:
        cells = [m]
        for unseen in (False, True):
            found = of(kinds, m, unseen)
            cells += [percent(change(found, f"+{m}")), percent(change(found, "all three"))] if found \
                else ["-", "-"]
        rows.append(cells)
    cells = ["general"]
    for unseen in (False, True):
        found = of(kinds, "general", unseen)
        worst = max((change(found, f"+{m}") for m in MODULES), default=0.0) if found else 0.0
        cells += [percent(worst), percent(change(found, "all three"))] if found else ["-", "-"]
    return table(["text", "own sources: its module alone", "all three loaded",
                  "unseen sources: alone", "all three loaded"], [*rows, cells])


def by_kind(kinds: list[dict[str, Any]]) -> list[str]:
    """Every kind with its own module, with all, and with all but its own."""
    rows = []
    for kind in kinds:
        d, one = kind["domain"], [kind]
        own = kind["rows"]["all three"]["shares"]
        alone = percent(change(one, f"+{d}")) if d in MODULES else "-"
        without = percent(change(one, f"all but {d}")) if d in MODULES else "-"
        rows.append([d, kind["kind"] + (" (unseen)" if kind["unseen"] else ""),
                     f"{bits(one, 'backbone'):.3f}", alone, percent(change(one, "all three")), without,
                     *(f"{own[m]:.2f}" for m in MODULES)])
    return table(["domain", "kind", "backbone", "own module", "all three", "all but its own",
                  *(f"share {m}" for m in MODULES)], rows, 2)


def means(prompts: list[dict[str, float]]) -> dict[str, float]:
    return {n: sum(p[n] for p in prompts) / len(prompts) for n in ("backbone", *MODULES)}


def reached(prompts: list[dict[str, float]], domain: str) -> int:
    """How many have their own module first, the backbone counted like a module's."""
    return sum(max(p, key=lambda n: p[n]) == domain for p in prompts)


def confusion(prompts: dict[str, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Mean shares by length of the prompt and domain of the text."""
    rows = []
    for length, by_domain in prompts.items():
        for d in DOMAINS:
            share = means(by_domain[d])
            own = f"{reached(by_domain[d], d)} of {len(by_domain[d])}" if d in MODULES else "-"
            rows.append([length, d, *(f"{share[n]:.2f}" for n in ("backbone", *MODULES)), own])
    return table(["words", "text", "backbone", *MODULES, "own module first"], rows, 2)


def lag_table(lags: list[dict[str, Any]]) -> list[str]:
    """Median lag by pair, and how many turned in time."""
    rows = []
    for old in DOMAINS:
        cells = [old]
        for new in DOMAINS:
            found = sorted(math.inf if r["lag"] is None else r["lag"] for r in lags
                           if (r["from"], r["to"]) == (old, new))
            cells.append("-" if not found else
                         "never" if math.isinf(found[len(found) // 2]) else str(found[len(found) // 2]))
        rows.append(cells)
    return table(["from \\ to", *DOMAINS], rows)


def goals(told: dict[str, Any]) -> list[str]:
    """What is aimed at, and whether this survey meets it."""
    rows: list[list[str]] = []

    def add(goal: str, measured: str, met: bool) -> None:
        rows.append([goal, measured, "yes" if met else "no"])

    for length, least in LARGEST.items():
        for m in MODULES:
            found = reached(told["prompts"][length][m], m)
            add(f"{m} has the largest share on {least} of 24 prompts of {length} words", str(found),
                found >= least)
    for length, by_domain in told["prompts"].items():
        share = means(by_domain["general"])
        worst = max(MODULES, key=lambda n: share[n])
        add(f"no module exceeds {GENERAL:.2f} on general prompts ({length})",
            f"{worst} {share[worst]:.2f}", share[worst] <= GENERAL)
    late = sum(r["lag"] is None or r["lag"] > LAG for r in told["lags"])
    add(f"after a change the share turns within {LAG} tokens",
        f"{len(told['lags']) - late} of {len(told['lags'])}", late == 0)
    for unseen in (False, True):
        for m in MODULES:
            found = of(told.get("kinds", []), m, unseen)
            if not found:
                continue
            alone, every = change(found, f"+{m}"), change(found, "all three")
            where = "unseen sources" if unseen else "own sources"
            add(f"{m} alone gains 12 % on {where}", percent(alone), alone <= -0.12)
            kept = every / alone if alone < 0 else 0.0
            add(f"all three keep 90 % of that of {m} on {where}", f"{100 * kept:.0f} %", kept >= 0.9)
        found = of(told.get("kinds", []), "general", unseen)
        if found:
            worst = max(change(found, row) for row in found[0]["rows"])
            add(f"general loses at most 1 % in any row, {'unseen' if unseen else 'own'} sources",
                percent(worst), worst <= 0.01)
    return table(["goal", "measured", "met"], rows, 1)


def report(told: dict[str, Any]) -> list[str]:
    """The survey's part of the document."""
    out = [BEGIN, "", "From here on written by `experts/train/survey.py`: pieces of 1,600 bytes of every source of the",
           "valid sets, and of sources that nothing was trained on (`experts/train/unseen.py` says which), asked",
           "of a running daemon, precision bf16, top_k 2. Bits per byte against the backbone; for general text",
           "the worst of the three modules alone.", ""]
    if "kinds" in told:
        size = sum(k["bytes"] for k in told["kinds"])
        out += [*summary(told["kinds"]), "", "## By kind of text", "",
                f"{len(told['kinds'])} kinds, {size:,} bytes in all; every source counts alike, not by its size.",
                "", *by_kind(told["kinds"]), ""]
    out += ["## Shares by length of the prompt, all three loaded", "",
            "24 prompts each: the first words of one and the same passages of the valid sets, and prompts as",
            "people type them (`prompts.txt`). First is who has the largest share, the backbone counted like",
            "a module.", "", *confusion(told["prompts"]), "", "## Tokens until the share turns", "",
            "Median of four texts of 50 words each that are followed by 50 words of another domain: the",
            "first token from which on, over four tokens, the new domain has more than the old one.", "",
            *lag_table(told["lags"]), "", "## Goals of the survey", "", *goals(told), ""]
    return out


def put_into(path: pathlib.Path, told: dict[str, Any]) -> None:
    """Puts the report in the place of the one that ends the document."""
    text = path.read_text(encoding="utf-8")
    at = text.find("\n" + BEGIN)
    head = text[:at + 1] if at >= 0 else text.rstrip("\n") + "\n\n"
    path.write_text(head + "\n".join(report(told)), encoding="utf-8")


def rest_of(path: pathlib.Path) -> str:
    """The report that ends the document, for whoever writes its beginning anew."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    at = text.find("\n" + BEGIN)
    return text[at + 1:] if at >= 0 else ""
