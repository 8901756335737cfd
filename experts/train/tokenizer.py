"""Byte-level BPE: training, Hugging Face `tokenizer.json`, and a caching encoder.

    python3 tokenizer.py --corpora ../../../shared/corpora --out ../backbone
"""
from __future__ import annotations

import argparse
import heapq
import json
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

import regex

import corpus

GPT2_PATTERN = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
SPECIALS = ("<|endoftext|>", "<|pad|>")
SEED = 1


def byte_chars() -> list[str]:
    """The printable character that stands for each byte value (GPT-2 table)."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {b: chr(b) for b in keep}, 0
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + extra)
            extra += 1
    return [table[b] for b in range(256)]


BYTE_CHARS = byte_chars()


def count_words(root: Path, megabytes: dict[str, float]) -> Counter[str]:
    """Pre-token counts over a random sample of documents of each training set."""
    counts: Counter[str] = Counter()
    for domain, size in megabytes.items():
        docs = corpus.texts(root, domain, "train")
        random.Random(SEED).shuffle(docs)
        left = int(size * 1e6)
        for doc in docs:
            counts.update(GPT2_PATTERN.findall(doc))
            left -= len(doc)
            if left <= 0:
                break
    return counts


def train_merges(counts: Counter[str], n_merges: int) -> list[tuple[str, str]]:
    """Most frequent pair first; ties by pair text, so the result is deterministic."""
    words: list[list[str]] = []
    freqs: list[int] = []
    for word, freq in counts.items():
        if freq >= 2:
            words.append([BYTE_CHARS[b] for b in word.encode()])
            freqs.append(freq)
    pairs: Counter[tuple[str, str]] = Counter()
    where: dict[tuple[str, str], set[int]] = defaultdict(set)
    for i, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += freqs[i]
            where[pair].add(i)
    heap = [(-n, p) for p, n in pairs.items()]
    heapq.heapify(heap)
    merges: list[tuple[str, str]] = []
    while heap and len(merges) < n_merges:
        neg, pair = heapq.heappop(heap)
        if pairs.get(pair, 0) != -neg:
            continue  # stale entry
        merges.append(pair)
        touched: set[tuple[str, str]] = set()
        for i in where.pop(pair):
            old = words[i]
            for p in zip(old, old[1:]):
                pairs[p] -= freqs[i]
                touched.add(p)
            new, j = [], 0
            while j < len(old):
                if j + 1 < len(old) and old[j] == pair[0] and old[j + 1] == pair[1]:
                    new.append(old[j] + old[j + 1])
                    j += 2
                else:
                    new.append(old[j])
                    j += 1
            words[i] = new
            for p in zip(new, new[1:]):
                pairs[p] += freqs[i]
                where[p].add(i)
                touched.add(p)
        pairs.pop(pair, None)
        for p in touched:
            if p != pair and pairs[p] > 0:
                heapq.heappush(heap, (-pairs[p], p))
    return merges


def tokenizer_json(merges: list[tuple[str, str]]) -> dict:
    """The Hugging Face description of this tokenizer."""
    tokens = [*SPECIALS, *BYTE_CHARS, *(a + b for a, b in merges)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for i, t in enumerate(SPECIALS)],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)},
                  "merges": [f"{a} {b}" for a, b in merges]},
    }


class Tokenizer:
    """Encoder and decoder for a `tokenizer.json` written by this file."""

    def __init__(self, path: Path) -> None:
        model = json.loads(Path(path).read_text(encoding="utf-8"))["model"]
        self.vocab: dict[str, int] = model["vocab"]
        self.ranks = {tuple(m.split(" ")): i for i, m in enumerate(model["merges"])}
        self.tokens = {i: t for t, i in self.vocab.items()}
        self.eos = self.vocab[SPECIALS[0]]
        self._bytes = {c: b for b, c in enumerate(BYTE_CHARS)}
        self._cache: dict[str, list[int]] = {}

    def _word(self, word: str) -> list[int]:
        parts = [BYTE_CHARS[b] for b in word.encode()]
        while len(parts) > 1:
            best = min(range(len(parts) - 1),
                       key=lambda i: self.ranks.get((parts[i], parts[i + 1]), 1 << 30))
            if (parts[best], parts[best + 1]) not in self.ranks:
                break
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        return [self.vocab[p] for p in parts]

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens in it are treated as plain text."""
        out: list[int] = []
        cache = self._cache
        for word in GPT2_PATTERN.findall(text):
            ids = cache.get(word)
            if ids is None:
                ids = cache[word] = self._word(word)
            out += ids
        return out

    def decode(self, ids: list[int]) -> str:
        """Text of `ids`, without special tokens."""
        chars = "".join(self.tokens[i] for i in ids if i >= len(SPECIALS))
        return bytes(self._bytes[c] for c in chars).decode("utf-8", "replace")


def main() -> None:
    """Train and write tokenizer.json and tokenizer_config.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=corpus.DEFAULT_CORPORA)
    parser.add_argument("--out", type=Path, default=corpus.REPO / "experts" / "backbone")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--megabytes", type=float, default=6.0, help="sample per domain")
    args = parser.parse_args()
    start = time.time()
    counts = count_words(args.corpora, {d: args.megabytes for d in corpus.DOMAINS})
    print(f"{len(counts)} distinct words, {time.time() - start:.0f} s", flush=True)
    merges = train_merges(counts, args.vocab - 256 - len(SPECIALS))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "tokenizer.json").write_text(
        json.dumps(tokenizer_json(merges), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048,
              "eos_token": SPECIALS[0], "bos_token": None, "pad_token": SPECIALS[1],
              "unk_token": None, "add_prefix_space": False, "clean_up_tokenization_spaces": False}
    (args.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{len(merges)} merges, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
