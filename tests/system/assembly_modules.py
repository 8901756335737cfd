"""Modules of kind assembly for tests, made of others that lie beside them."""
from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

from harness import run, split


def versions(checkpoint: pathlib.Path, out: pathlib.Path, slots: tuple[int, int] = (4, 5)) -> pathlib.Path:
    """Cuts two versions of one module "legal" from experts of a checkpoint: out/legal-a and out/legal-b,
    beside out/backbone; returns `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for version, slot in zip("ab", slots):
        # The rest goes as well, so that both are of the same backbone.
        rest = next(s for s in slots if s != slot)
        parts = split(checkpoint, out / f"cut-{version}", legal=str(slot), rest=str(rest))
        shutil.move(parts / "modules" / "legal", out / f"legal-{version}")
        if version == "a":
            shutil.move(parts / "backbone", out / "backbone")
        shutil.rmtree(parts)
    return out


def assembly(directory: pathlib.Path, backbone: pathlib.Path, parents: dict[str, float | None], *,
             name: str = "legal", attach: str = "append", rules: str = "", hidden: int | None = None,
             output: str = "") -> pathlib.Path:
    """Writes and seals a module of kind assembly; the first of `parents` (path to λ) is the base."""
    directory.mkdir(parents=True)
    listed = "".join(f"  - {{path: {path}" + ("" if value is None else f", lambda: {value}") + "}\n"
                     for path, value in parents.items())
    (directory / "recipe.yaml").write_text(
        f"chimera: assembly/1\nbase: {next(iter(parents))}\nparents:\n{listed}{rules}{output}")
    if hidden is None:
        hidden = json.loads((backbone / "config.json").read_text())["hidden_size"]
    (directory / "module.yaml").write_text(f"""chimera: module/1
name: {name}
version: 1.0.0
kind: assembly
attach: {attach}
backbone:
  fingerprint: ""
  hidden_size: {hidden}
files:
  - path: recipe.yaml
    sha256: ""
assembly:
  parents:
""" + "".join(f"    - path: {path}\n      digest: \"\"\n" for path in parents))
    run("chimera", "module", "seal", str(directory), "--backbone", str(backbone))
    return directory


def module(client: Any, name: str = "legal") -> dict[str, Any]:
    """What `modules` says of the module in use."""
    return next(m for m in client.modules() if m["name"] == name and m["state"] == "active")
