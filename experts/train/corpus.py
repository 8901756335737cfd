"""Reading the corpora: `<root>/<domain>/<part>.jsonl.zst`, one JSON record per line."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Iterator

DOMAINS = ("general", "legal", "bio", "finance")
EXPERTS = ("legal", "bio", "finance")
# Kinds (sources) that the recipe for a GPU does not train on, so that its gains can be told on kinds
# that nothing saw. (The weights in the repository are older: they saw all but what unseen.py names.)
LEFT_OUT: dict[str, tuple[str, ...]] = {
    "general": ("18f_blog", "openstax_gen"), "legal": ("dc_code", "contracts_severance"),
    "bio": ("plos", "wikipedia_bio"), "finance": ("tatqa", "openstax_econ")}
REPO = Path(__file__).resolve().parents[2]
DEFAULT_CORPORA = REPO.parent / "shared" / "corpora"
DEFAULT_WORK = Path.home() / ".cache" / "chimera-train"


def records(root: Path, domain: str, part: str) -> Iterator[dict]:
    """Yield the records (`source`, `id`, `text`) of one part of one domain."""
    path = Path(root) / domain / f"{part}.jsonl.zst"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such corpus file (use --corpora)")
    with subprocess.Popen(["zstd", "-dcq", str(path)], stdout=subprocess.PIPE) as proc:
        assert proc.stdout is not None
        for line in proc.stdout:
            yield json.loads(line)


def texts(root: Path, domain: str, part: str) -> list[str]:
    """All texts of one part of one domain, in file order."""
    return [r["text"] for r in records(root, domain, part)]
