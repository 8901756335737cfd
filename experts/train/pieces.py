"""Token files in pieces, and results in parts: what travels to a machine with a GPU and back.

    python3 pieces.py pack --corpora ../../../shared/corpora --out PIECES [--tokens 20000000]
    python3 pieces.py join PARTS WORK        # results of train_device.py into a work directory

`pack` encodes the training sets without the kinds that are left out (corpus.LEFT_OUT) into files
PIECES/NNN.npz of at most 20 MiB; every piece holds its part of every domain, so that any of them are a
corpus. PIECES/valid.npz holds the valid sets, and apart from them the kinds that are left out;
PIECES/gates.npz the windows that gates are fitted to.
"""
from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import random
import tarfile
from array import array
from pathlib import Path

import numpy as np

import corpus
import gate_texts

PIECE_BYTES = 20 << 20
PART_BYTES, PARTS_BYTES = 16 << 20, 64 << 20
CHARACTERS_A_TOKEN = 4.0
TOKENS_A_PIECE = 14_000_000  # some 1.25 bytes each, deflated: 17 MB
GATE_WINDOWS = {"long": 50, "prompt": 500, "change": 120}  # of each domain
SEED = 2


def encode(tok, texts: list[str]) -> np.ndarray:
    """Documents one after the other, each preceded by the end-of-text token."""
    ids = array("H")
    for text in texts:
        ids.append(tok.eos)
        ids.extend(tok.encode(text))
    return np.frombuffer(ids.tobytes(), np.uint16)


def training_texts(root: Path, domain: str) -> list[str]:
    """Of the kinds that are not left out, in a fixed random order."""
    texts = [r["text"] for r in corpus.records(root, domain, "train")
             if r["source"] not in corpus.LEFT_OUT[domain]]
    random.Random(SEED).shuffle(texts)
    return texts


def valid_arrays(root: Path, tok) -> dict[str, np.ndarray]:
    """<domain>.own and <domain>.left: tokens of valid texts of kinds that are trained on, and of those
    that are not; <name>.bytes is how many bytes they are of."""
    out = {}
    for domain in corpus.DOMAINS:
        records = list(corpus.records(root, domain, "valid"))
        for name, left in (("own", False), ("left", True)):
            texts = [r["text"] for r in records if (r["source"] in corpus.LEFT_OUT[domain]) == left]
            out[f"{domain}.{name}"] = encode(tok, texts)
            out[f"{domain}.{name}.bytes"] = np.array([sum(len(t.encode()) for t in texts)])
    return out


def save(path: Path, arrays: dict[str, np.ndarray]) -> int:
    """One piece; refuses to write one that is too large."""
    blob = io.BytesIO()
    np.savez_compressed(blob, **arrays)
    size = blob.getbuffer().nbytes
    if size > PIECE_BYTES:
        raise ValueError(f"{path}: {size} bytes (expected {PIECE_BYTES} at most). Use fewer --per-piece")
    path.write_bytes(blob.getbuffer())
    return size


def pack(root: Path, out: Path, tok, tokens: int, per_piece: int) -> None:
    """Pieces of `per_piece` tokens, `tokens` in all (0: all that there are)."""
    out.mkdir(parents=True, exist_ok=True)
    print("valid", save(out / "valid.npz", valid_arrays(root, tok)), "bytes", flush=True)
    drawn = gate_texts.pools(root, SEED, 150, corpus.LEFT_OUT)
    gate_texts.save_windows(out / "gates.npz", gate_texts.windows(tok, drawn, GATE_WINDOWS, 256, SEED))
    texts = {d: training_texts(root, d) for d in corpus.DOMAINS}
    characters = sum(len(t) for each in texts.values() for t in each)
    share = min(1.0, tokens * CHARACTERS_A_TOKEN / characters) if tokens else 1.0
    ids = {d: encode(tok, each[:math.ceil(len(each) * share)]) for d, each in texts.items()}
    count = max(1, -(-sum(map(len, ids.values())) // per_piece))
    for n in range(count):
        part = {d: v[len(v) * n // count:len(v) * (n + 1) // count] for d, v in ids.items()}
        size = save(out / f"{n:03d}.npz", part)
        print(f"piece {n} of {count}: {sum(map(len, part.values()))} tokens, {size} bytes", flush=True)


class Pieces:
    """The tokens of all pieces of a folder, by domain; `batch` draws windows as data.Stream does."""

    def __init__(self, folder: Path) -> None:
        files = sorted(p for p in Path(folder).glob("[0-9]*.npz"))
        if not files:
            raise FileNotFoundError(f"{folder}: no pieces (expected NNN.npz, see pieces.py pack)")
        loaded = [np.load(p) for p in files]
        self.ids = {d: np.concatenate([f[d] for f in loaded]) for d in corpus.DOMAINS}
        self.valid = dict(np.load(Path(folder) / "valid.npz"))

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids.values()))

    def batch(self, mix: dict[str, float], seed: int, step: int, rows: int, length: int) -> np.ndarray:
        """int64 [rows, length + 1], a function of the arguments alone."""
        rng = np.random.default_rng((seed, step))
        names = list(mix)
        weights = np.array([mix[n] for n in names])
        picked = rng.choice(len(names), rows, p=weights / weights.sum())
        out = np.empty((rows, length + 1), dtype=np.int64)
        for row, which in enumerate(picked):
            ids = self.ids[names[which]]
            at = int(rng.integers(0, len(ids) - length - 1))
            out[row] = ids[at:at + length + 1]
        return out


def split(files: dict[str, bytes], out: Path) -> None:
    """One archive of all files in parts of PART_BYTES: result.000, …; a part that is not needed any
    more is removed. A cut while they are written leaves a mixture, which join() tells by the digest
    in result.json."""
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as tar:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    whole = blob.getbuffer()
    if whole.nbytes > PARTS_BYTES - PART_BYTES // 4:
        raise ValueError(f"results: {whole.nbytes} bytes (expected {PARTS_BYTES} at most)")
    out.mkdir(parents=True, exist_ok=True)
    parts = [whole[at:at + PART_BYTES] for at in range(0, whole.nbytes, PART_BYTES)]
    for n, part in enumerate(parts):
        (out / f"result.{n:03d}.new").write_bytes(part)
    for n in range(len(parts)):
        (out / f"result.{n:03d}.new").rename(out / f"result.{n:03d}")
    for old in out.glob("result.[0-9][0-9][0-9]"):
        if int(old.suffix[1:]) >= len(parts):
            old.unlink()
    digest = hashlib.sha256(whole).hexdigest()
    (out / "result.json").write_text(json.dumps({"parts": len(parts), "sha256": digest}) + "\n")


def join(parts: Path, work: Path) -> list[str]:
    """The files of an archive, into the work directory."""
    told = json.loads((parts / "result.json").read_text())
    whole = b"".join((parts / f"result.{n:03d}").read_bytes() for n in range(told["parts"]))
    found = hashlib.sha256(whole).hexdigest()
    if found != told["sha256"]:
        raise ValueError(f"{parts}: found {found} (expected {told['sha256']}). A part is of another run")
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        names = tar.getnames()
        for name in names:
            if Path(name).name != name:
                raise ValueError(f"{parts}: found {name} (expected a plain name)")
            data = tar.extractfile(name)
            assert data is not None
            (work / name).write_bytes(data.read())
    return names


def main() -> None:
    """pack or join."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("--corpora", type=Path, default=corpus.DEFAULT_CORPORA)
    packing.add_argument("--out", type=Path, required=True)
    packing.add_argument("--tokens", type=int, default=0, help="of all pieces together, about; 0: all")
    packing.add_argument("--per-piece", type=int, default=TOKENS_A_PIECE)
    packing.add_argument("--tokenizer", type=Path,
                         default=corpus.REPO / "experts" / "backbone" / "tokenizer.json")
    joining = commands.add_parser("join")
    joining.add_argument("parts", type=Path)
    joining.add_argument("work", type=Path)
    args = parser.parse_args()
    if args.command == "join":
        print(" ".join(join(args.parts, args.work)))
        return
    from tokenizer import Tokenizer  # needs `regex`, which the machine with the GPU does without
    pack(args.corpora, args.out, Tokenizer(args.tokenizer), args.tokens, args.per_piece)


if __name__ == "__main__":
    main()
