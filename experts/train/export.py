"""Writes `experts/backbone/` (Hugging Face directory) and `experts/<domain>/` (module) from a run.

    python3 export.py --work ~/.cache/chimera-train
    python3 export.py --fingerprint sha256:...        # only rewrite the fingerprint in module.yaml
"""
from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
from pathlib import Path

import torch

import corpus
import safetensors_io
from compose import public_model, with_modules
from model import FlexOlmo
from module_text import CARDS
from tokenizer import Tokenizer

EXPERTS_DIR = corpus.REPO / "experts"
PENDING = "sha256:PENDING"
SLACK = 1.10
TOP_K = 2  # what train_expert and tune_gates fit the modules for


def write_backbone(model: FlexOlmo, out: Path) -> None:
    """config.json, generation_config.json and model.safetensors (BF16)."""
    out.mkdir(parents=True, exist_ok=True)
    config = model.config.to_json()
    (out / "config.json").write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")
    generation = {"_from_model_config": True, "eos_token_id": model.config.eos_token_id,
                  "pad_token_id": model.config.pad_token_id, "transformers_version": "4.57.1"}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    safetensors_io.write(out / "model.safetensors", model.tensors())


def text_bits(model: FlexOlmo, tok: Tokenizer, text: str) -> float:
    """Bits per byte of one short text, after the end-of-text token."""
    ids = torch.tensor([[tok.eos, *tok.encode(text)]])
    with torch.no_grad():
        return float(model.loss(ids, 1.0)) / math.log(2) / len(text.encode())


def wrap(text: str, indent: str) -> str:
    """A double-quoted YAML scalar on one line."""
    return indent + json.dumps(text, ensure_ascii=False)


def module_yaml(domain: str, sha: str, fingerprint: str, hidden: int, bound: float) -> str:
    """module.yaml of one expert."""
    card = CARDS[domain]
    lines = ["chimera: module/1", f"name: {domain}", f"version: {card['version']}",
             f"domain: {domain}", f"description: {card['description']}",
             f"license: {card['license']}", "kind: weights", "attach: append", "backbone:",
             f"  fingerprint: {fingerprint}", f"  hidden_size: {hidden}", "layers: all", "files:",
             "  - path: weights.safetensors", f"    sha256: {sha}", "provenance:", "  data:"]
    for source, licence in card["data"]:
        lines.append(f"    - {json.dumps(f'{source}, {licence}')}")
    lines += ["routing:", f"  top_k: {TOP_K}"]
    lines += ["probe:", "  text:" + wrap(card["probe"], " "),
              f"  max_bits_per_byte: {bound:.2f}"]
    return "\n".join(lines) + "\n"


def old_fingerprint(path: Path) -> str:
    """The fingerprint in an existing module.yaml, or the placeholder."""
    found = re.search(r"fingerprint: (sha256:\S+)", path.read_text()) if path.exists() else None
    return found.group(1) if found else PENDING


def set_fingerprint(fingerprint: str) -> None:
    """Put the backbone's fingerprint into every module.yaml."""
    for domain in corpus.EXPERTS:
        path = EXPERTS_DIR / domain / "module.yaml"
        path.write_text(re.sub(r"fingerprint: \S+", f"fingerprint: {fingerprint}",
                               path.read_text()))


def main() -> None:
    """Export everything, or only set the fingerprint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=corpus.DEFAULT_WORK)
    parser.add_argument("--fingerprint", help="write this fingerprint and do nothing else")
    parser.add_argument("--tighten", type=float, default=0.5,
                        help="subtracted from every gate bias (not from tuned gates)")
    parser.add_argument("--only", nargs="*", default=["backbone", *corpus.EXPERTS])
    args = parser.parse_args()
    if args.fingerprint:
        set_fingerprint(args.fingerprint)
        return
    torch.set_num_threads(1)
    public = public_model(args.work)
    if "backbone" in args.only:
        write_backbone(public, EXPERTS_DIR / "backbone")
    rounded = FlexOlmo.from_dir(EXPERTS_DIR / "backbone")
    tok = Tokenizer(EXPERTS_DIR / "backbone" / "tokenizer.json")
    for domain in corpus.EXPERTS:
        final, tuned = args.work / f"{domain}.final.pt", args.work / f"{domain}.tuned.pt"
        if domain not in args.only or not (final.exists() or tuned.exists()):
            continue
        module = torch.load(tuned if tuned.exists() else final)
        if not tuned.exists():
            for name in module:
                if name.endswith("gate.bias"):
                    module[name] = module[name] - args.tighten
        out = EXPERTS_DIR / domain
        out.mkdir(parents=True, exist_ok=True)
        file = out / "weights.safetensors"
        safetensors_io.write(file, module, keep_f32=("gate.weight", "gate.bias"))
        module = safetensors_io.read(file)
        # A loader probes with the top_k that the manifest states; the bound holds for 1 as well.
        bits = max(text_bits(with_modules(rounded, [module], top_k), tok, CARDS[domain]["probe"])
                   for top_k in (1, TOP_K))
        plain = text_bits(rounded, tok, CARDS[domain]["probe"])
        yaml = out / "module.yaml"
        sha = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
        yaml.write_text(module_yaml(domain, sha, old_fingerprint(yaml) if "backbone" not in args.only
                                    else PENDING, rounded.config.hidden_size, bits * SLACK))
        print(f"{domain}: {file.stat().st_size / 1e6:.2f} MB, probe {bits:.3f} bits per byte "
              f"(backbone {plain:.3f})")


if __name__ == "__main__":
    main()
