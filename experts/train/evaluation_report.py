"""Writes experts/EVALUATION.md: the demo model measured through the daemon.

    experts/train/evaluation_report.py --corpora ../shared/corpora [--limit-bytes N] [--cache FILE]

Starts build/bin/chimerad on the backbone in a private directory, applies each composition in turn
(`chimera apply`) and scores the valid set of each domain (`chimera score`). Nothing is computed
here but ratios. With --cache, answers to the same question - the same program, model files, text and
limit - are taken from that file, so that a run that was interrupted goes on. Standard library only.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import tempfile
import time
from typing import Any

import survey_report

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / "build" / "bin"
DOMAINS = ("general", "legal", "bio", "finance")
MODULES = DOMAINS[1:]
ROWS: dict[str, tuple[str, ...]] = {
    "backbone": (),
    **{f"+{m}": (m,) for m in MODULES},
    "all three": MODULES,
    **{f"all but {m}": tuple(n for n in MODULES if n != m) for m in MODULES},
}


# What a reader must know to judge the numbers; true of the weights in the repository.
CAVEAT = """\
Gate rows were fitted on training texts; how far they moved there and their prior were chosen on the
excerpts, which are of these valid sets, and how long to train by watching ten windows of them. The
backbone has not seen them."""


class Daemon:
    """chimerad on the demo backbone with sockets and state in a temporary directory."""

    def __init__(self, work: pathlib.Path) -> None:
        self.work = work
        self.serve, self.control = f"ipc://{work}/serve.sock", f"ipc://{work}/control.sock"
        config = work / "deployment.yaml"
        config.write_text(json.dumps({
            "chimera": "deployment/1",
            "backbone": {"path": str(ROOT / "experts" / "backbone"), "precision": "bf16"},
            "composition": {"top_k": 2},
            "serve": {"endpoint": self.serve}, "control": {"endpoint": self.control},
            "state": str(work / "state")}))
        self.process = subprocess.Popen([BIN / "chimerad", "--config", config],
                                        stderr=(work / "daemon.log").open("w"))
        for _ in range(200):
            if self.chimera("health", check=False) is not None:
                return
            time.sleep(0.05)
        raise SystemExit(f"chimerad did not start:\n{(work / 'daemon.log').read_text()}")

    def chimera(self, *args: str, check: bool = True) -> dict[str, Any] | None:
        """Runs `chimera --json …`; the JSON object of its last line, None on failure."""
        done = subprocess.run([BIN / "chimera", "--endpoint", self.serve, "--control", self.control,
                               "--json", *args], capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        if check:
            raise SystemExit(f"chimera {' '.join(args)}: {done.stderr}")
        return None

    def compose(self, modules: tuple[str, ...]) -> None:
        """Applies the composition of these modules, top_k 2."""
        path = self.work / "composition.json"
        path.write_text(json.dumps({"top_k": 2, "modules": [
            {"path": str(ROOT / "experts" / m)} for m in modules]}))
        self.chimera("apply", str(path))


class Answers:
    """What `chimera score` answered, kept in a file unless that is None."""

    def __init__(self, path: pathlib.Path | None) -> None:
        self.path, self.digests = path, {}
        self.known = json.loads(path.read_text()) if path and path.exists() else {}

    def digest(self, path: pathlib.Path) -> str:
        """Of a file, or of all files of a directory."""
        if path not in self.digests:
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            each = [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
            self.digests[path] = hashlib.sha256(" ".join(each).encode()).hexdigest()
        return self.digests[path]

    def key(self, row: str, modules: tuple[str, ...], text: str, limit: int) -> str:
        """Everything that the answer depends on, and the row, as one row is a repetition."""
        paths = [BIN / "chimerad", BIN / "chimera", ROOT / "experts" / "backbone",
                 *(ROOT / "experts" / m for m in modules), pathlib.Path(text)]
        parts = [row, str(limit), *(self.digest(p) for p in paths)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Remembers it at once."""
        self.known[key] = answer
        if self.path:
            self.path.write_text(json.dumps(self.known))


def measure(daemon: Daemon, text: dict[str, str], limit: int,
            answers: Answers) -> dict[str, dict[str, Any]]:
    """bits per byte and shares of every row and column, and of the backbone once more at the end."""
    table: dict[str, dict[str, Any]] = {}
    options = ["--limit-bytes", str(limit)] if limit else []
    for row, modules in [*ROWS.items(), ("backbone again", ())]:
        daemon.compose(modules)
        table[row] = {}
        for d in DOMAINS:
            key = answers.key(row, modules, text[d], limit)
            if key not in answers.known:
                answers.put(key, daemon.chimera("score", text[d], *options))
            table[row][d] = answers.known[key]
        print(row, {d: round(table[row][d]["bits_per_byte"], 4) for d in DOMAINS}, flush=True)
    return table


def bits_table(table: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown of bits per byte, change against the backbone in brackets."""
    lines = ["| composition | " + " | ".join(DOMAINS) + " |", "| --- |" + " ---: |" * len(DOMAINS)]
    for row in ROWS:
        cells = []
        for d in DOMAINS:
            bits, base = table[row][d]["bits_per_byte"], table["backbone"][d]["bits_per_byte"]
            change = "" if row == "backbone" else f" ({100 * (bits / base - 1):+.1f} %)"
            cells.append(f"{bits:.4f}{change}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def share_table(table: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown of the share of each module with all three loaded."""
    lines = ["| module | " + " | ".join(DOMAINS) + " |", "| --- |" + " ---: |" * len(DOMAINS)]
    for m in MODULES:
        shares = [table["all three"][d]["modules"][m]["share"] for d in DOMAINS]
        lines.append(f"| {m} | " + " | ".join(f"{s:.3f}" for s in shares) + " |")
    return lines


def goals(table: dict[str, dict[str, Any]]) -> list[str]:
    """The goals of the demo model and whether this measurement meets them."""
    def bits(row: str, column: str) -> float:
        return table[row][column]["bits_per_byte"]

    lines = ["| goal | measured | met |", "| --- | --- | --- |"]

    def add(goal: str, measured: str, met: bool) -> None:
        lines.append(f"| {goal} | {measured} | {'yes' if met else 'no'} |")

    for m in MODULES:
        gain = 1 - bits(f"+{m}", m) / bits("backbone", m)
        add(f"{m} alone lowers its own column by 12 % or more", f"{100 * gain:.1f} %", gain >= 0.12)
    for m in MODULES:
        base = bits("backbone", m)
        kept = (base - bits("all three", m)) / (base - bits(f"+{m}", m))
        add(f"all three keep 90 % or more of the gain of {m}", f"{100 * kept:.1f} %", kept >= 0.9)
    worst = max(bits(row, "general") / bits("backbone", "general") - 1 for row in ROWS)
    add("general gets at most 2 % worse in any row", f"{100 * worst:+.1f} %", worst <= 0.02)
    for m in MODULES:
        shares = {n: table["all three"][m]["modules"][n]["share"] for n in MODULES}
        largest = max(shares, key=lambda n: shares[n])
        add(f"{m} has the largest share in its own column", f"largest: {largest}", largest == m)
    same = all(table["backbone again"][d]["nats"] == table["backbone"][d]["nats"] for d in DOMAINS)
    add("withdrawing the modules gives the first scores back, bit for bit",
        "equal" if same else "different", same)
    return lines


def report(table: dict[str, dict[str, Any]], limit: int) -> str:
    """The whole document."""
    baselines = json.loads((pathlib.Path(__file__).parent / "baselines.json").read_text())
    part = f"the first {limit:,} bytes of each valid set" if limit else "the whole valid sets"
    return "\n".join([
        "# The demo model, measured through the daemon", "",
        "Written by `experts/train/evaluation_report.py`; every number is an answer of",
        f"`chimera score` on {part}, precision bf16, top_k 2.", "",
        *CAVEAT.splitlines(), "",
        "## Bits per byte (lower is better; in brackets the change against the backbone)", "",
        *bits_table(table), "", "## Share of each module, all three loaded", "",
        *share_table(table), "", "## Goals", "", *goals(table), "",
        "## Beside simple compressors, general valid set", "", "```json",
        json.dumps(baselines, indent=1), "```", ""])


def main() -> None:
    """Parses arguments, measures, writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=pathlib.Path, default=ROOT.parent / "shared" / "corpora")
    parser.add_argument("--limit-bytes", type=int, default=0, help="per valid set; 0 = all")
    parser.add_argument("--cache", type=pathlib.Path, help="file of answers to go on from")
    args = parser.parse_args()
    text = {d: str(args.corpora / d / "valid.jsonl.zst") for d in DOMAINS}
    with tempfile.TemporaryDirectory(prefix="chimera-eval-") as work:
        daemon = Daemon(pathlib.Path(work))
        try:
            table = measure(daemon, text, args.limit_bytes, Answers(args.cache))
        finally:
            daemon.process.terminate()
            daemon.process.wait()
    document = ROOT / "experts" / "EVALUATION.md"
    survey = survey_report.rest_of(document)  # what survey.py wrote stays
    document.write_text(report(table, args.limit_bytes) + (f"\n{survey}" if survey else ""))
    (pathlib.Path(__file__).parent / "evaluation.json").write_text(json.dumps(
        {row: {d: {"bits_per_byte": s["bits_per_byte"], "nats": s["nats"]} for d, s in cells.items()}
         for row, cells in table.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
