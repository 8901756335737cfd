"""Modules around plugins of the zoo, for the cases that need a manifest, tensors or a reference."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import random
import shutil
import struct

HIDDEN, INNER = 20, 8


@dataclasses.dataclass
class Variant:
    """A module and the verdicts that it must get; `text` replaces parts of module.yaml."""
    name: str
    library: str
    fail: set[int]
    text: tuple[str, str] = ("", "")
    reference_seed: int = 1
    level: str = "normal"
    skip: set[int] | None = None


VARIANTS = [
    Variant("good_module", "tensors_read", set(), level="strict", skip={38}),
    Variant("trusts_tensors", "tensors_trusted", {40}),
    Variant("wrong_digest", "tensors_read", {8}),
    Variant("manifest_version", "tensors_read", {7}, ("version: 1.0.0", "version: 1.0.1")),
    Variant("manifest_hidden_size", "tensors_read", {7}, ("hidden_size: 20", "hidden_size: 24")),
    Variant("other_reference", "tensors_read", {32}, reference_seed=2),
]


def safetensors(seed: int) -> bytes:
    """gate, up and down of the three experts, F32."""
    rng = random.Random(seed)
    header, data = {}, b""
    for expert in ("layers.0.experts.0", "layers.0.experts.1", "layers.3.experts.0"):
        for which in ("gate", "up", "down"):
            shape = [HIDDEN, INNER] if which == "down" else [INNER, HIDDEN]
            raw = struct.pack(f"<{HIDDEN * INNER}f", *(rng.gauss(0, 0.2) for _ in range(HIDDEN * INNER)))
            header[f"{expert}.{which}_proj.weight"] = {
                "dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def make(variant: Variant, libraries: pathlib.Path, out: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The module directory and the reference file."""
    folder = out / variant.name
    folder.mkdir()
    shutil.copy(libraries / f"{variant.library}.so", folder / "expert.so")
    (folder / "weights.safetensors").write_bytes(safetensors(1))
    reference = out / f"{variant.name}.safetensors"
    reference.write_bytes(safetensors(variant.reference_seed))
    files = ""
    for name in ("expert.so", "weights.safetensors"):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if variant.fail == {8} and name == "weights.safetensors":
            digest = digest[::-1]
        files += f"  - path: {name}\n    sha256: sha256:{digest}\n"
    manifest = ("chimera: module/1\nname: zoo\nversion: 1.0.0\nkind: library\nattach: append\n"
                f"backbone:\n  fingerprint: sha256:{'a' * 64}\n  hidden_size: 20\nlayers: all\n"
                f"files:\n{files}")
    (folder / "module.yaml").write_text(manifest.replace(*variant.text) if variant.text[0] else manifest)
    return folder, reference
