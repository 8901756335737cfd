"""Passages of a number of words out of texts. Standard library only."""
from __future__ import annotations

import random
import re
from collections.abc import Sequence

SENTENCE = re.compile(r"(?:^|(?<=[.!?])\s+|\n+)(?=[A-Z\"(§0-9])")


def starts(text: str) -> list[int]:
    """Where sentences begin."""
    return [m.end() for m in SENTENCE.finditer(text)]


def words_at(text: str, at: int, words: int) -> str | None:
    """So many words from there on, if there are as many."""
    found = re.match(r"\s*(?:\S+\s+){%d}\S+" % (words - 1), text[at:at + 12 * words + 200])
    return found.group(0) if found else None


def evenly(texts: dict[str, Sequence[str]], count: int, words: int, seed: int) -> list[str]:
    """`count` passages that begin with a sentence, the sources of `texts` in turn; the same every time.
    Spaces in them are single."""
    names, out, turn = sorted(texts), [], 0
    while len(out) < count:
        source = texts[names[turn % len(names)]]
        text = source[turn // len(names) % len(source)]
        rng = random.Random(seed + turn)
        turn += 1
        for _ in range(50):
            found = words_at(text, rng.choice(starts(text) or [0]), words)
            if found:
                out.append(" ".join(found.split()))
                break
    return out
