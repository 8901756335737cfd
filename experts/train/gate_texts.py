"""Texts that the gates are fitted to (stage 5), of the training sets alone.

Three kinds of windows, as a daemon meets them: passages out of the middle of long texts; short prompts,
the first words of a sentence after the end-of-text token; and texts that change their domain. Every
source of a domain has its part, by the fourth root of its size and in prompts alike, so that a small
kind is heard, too.
"""
from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import corpus
from passages import starts, words_at

if TYPE_CHECKING:  # it needs `regex`, which whoever reads windows does without
    from tokenizer import Tokenizer

PROMPT_WORDS = (3, 4, 5, 6, 6, 6, 7, 8, 9, 10, 12, 15)  # and one in ten of them LONG_PROMPT
LONG_PROMPT = 50
EVERY = 5      # of a passage: its tokens tell the same, so every fifth of them does
AFTER = 32     # tokens after a change
KINDS = ("long", "prompt", "change")
UNSURE = 2  # tokens after a change that nobody can tell yet: not fitted


@dataclass
class Window:
    """Token ids, and for each the domain that it is of (its number, or -1: not fitted)."""
    ids: list[int]
    label: list[int]
    kind: str  # of KINDS


@dataclass
class Pool:
    """Documents of one domain by source."""
    documents: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def draw(self, rng: random.Random, alike: bool) -> str:
        """A document, its source drawn by the fourth root of its size, or all sources `alike`."""
        names = sorted(self.documents)
        sizes = [1.0 if alike else sum(map(len, self.documents[n])) ** 0.25 for n in names]
        return rng.choice(self.documents[rng.choices(names, sizes)[0]])


def pools(root: Path, seed: int, per_source: int, left_out: dict[str, tuple[str, ...]]) -> list[Pool]:
    """A sample of every source of every domain, without the kinds that are left out."""
    out = []
    for domain in corpus.DOMAINS:
        pool, seen = Pool(), defaultdict(int)
        rng = random.Random(seed)
        for record in corpus.records(root, domain, "train"):
            source = record["source"]
            if source in left_out.get(domain, ()) or len(record["text"]) < 200:
                continue
            seen[source] += 1
            kept = pool.documents[source]
            if len(kept) < per_source:
                kept.append(record["text"])
            elif (at := rng.randrange(seen[source])) < per_source:
                kept[at] = record["text"]
        out.append(pool)
    return out


def passage(pool: Pool, rng: random.Random, words: int, sentence: bool) -> str:
    """So many words out of a document, from the beginning of a sentence or from anywhere."""
    while True:
        text = pool.draw(rng, sentence)
        at = rng.choice(starts(text) or [0]) if sentence else rng.randrange(max(1, len(text) - 1500))
        found = words_at(text, at, words)
        if found:
            return found.strip() if sentence else found


def windows(tok: Tokenizer, drawn: list[Pool], count: dict[str, int], length: int,
            seed: int) -> list[Window]:
    """`count[kind]` windows of each domain (of "change": from each domain), `length` tokens at most."""
    rng = random.Random(seed)
    out = []
    for d, pool in enumerate(drawn):
        for _ in range(count["long"] * (1 if d else 2)):  # general text is the most diverse
            ids = tok.encode(passage(pool, rng, length, False))[:length]
            told = rng.randrange(EVERY)
            out.append(Window(ids, [d if i % EVERY == told else -1 for i in range(len(ids))], "long"))
        for i in range(count["prompt"]):
            words = rng.choice(PROMPT_WORDS) if i % 10 else LONG_PROMPT
            ids = [tok.eos, *tok.encode(passage(pool, rng, words, True))]
            out.append(Window(ids[:length], ([-1] + [d] * len(ids))[:min(length, len(ids))], "prompt"))
        for _ in range(count["change"]):
            to = rng.choice([e for e in range(len(drawn)) if e != d])
            first = [tok.eos, *tok.encode(passage(pool, rng, rng.choice((15, 30, 50, 60)), True))]
            then = tok.encode("\n\n" + passage(drawn[to], rng, 40, True))[:AFTER]
            label = [-1] * (len(first) + UNSURE) + [to] * (len(then) - UNSURE)
            out.append(Window((first + then)[:length], label[:length], "change"))
    return out


def save_windows(path: Path, each: list[Window]) -> None:
    """One file of windows, for a machine without the texts."""
    np.savez_compressed(path, ids=np.concatenate([np.array(w.ids, np.uint16) for w in each]),
                        label=np.concatenate([np.array(w.label, np.int8) for w in each]),
                        size=np.array([len(w.ids) for w in each]),
                        kind=np.array([KINDS.index(w.kind) for w in each], np.int8))


def load_windows(path: Path) -> list[Window]:
    """What `save_windows` wrote."""
    held = np.load(path)
    ends = np.cumsum(held["size"])
    return [Window(held["ids"][end - n:end].tolist(), held["label"][end - n:end].tolist(), KINDS[kind])
            for end, n, kind in zip(ends, held["size"], held["kind"])]
