"""Every plugin of the zoo gets exactly the verdicts that expected.txt lists.

usage: zoo_test.py CHECKER ZOO_DIRECTORY EXPECTED [NAME...]
"""
from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys


def read_expected(path: pathlib.Path) -> dict[str, dict[str, set[int]]]:
    """Lines "name: fail 3 45; skip 37": cases that do not pass. Skips are listed only for plugins
    that keep the contract ("level strict" in front); for the others any skip is fine."""
    out: dict[str, dict[str, set[int]]] = {}
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, verdicts = line.split(":")
        table: dict[str, set[int]] = {}
        for part in filter(None, (p.strip() for p in verdicts.split(";"))):
            kind, *cases = part.split()
            table[kind] = {int(c) for c in cases}
        out[name.strip()] = table
    return out


def run_checker(checker: str, library: pathlib.Path, level: str) -> tuple[int, list[dict]]:
    done = subprocess.run([checker, str(library), "--json", "--seed", "1", "--level", level],
                          text=True, capture_output=True, timeout=240)
    if done.returncode not in (0, 1):
        raise AssertionError(f"{library.name}: exit status {done.returncode}: {done.stderr}")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def problems_of(checker: str, library: pathlib.Path, want: dict[str, set[int]]) -> list[str]:
    good = "strict" in want
    status, lines = run_checker(checker, library, "strict" if good else "normal")
    cases, summary = lines[:-1], lines[-1]
    if [c["case"] for c in cases] != list(range(1, 48)) or summary["type"] != "summary":
        return [f"{library.stem}: found {len(cases)} cases (expected 1 to 47 and a summary)"]
    out = []
    kinds = ("fail", "warn", "skip") if good else ("fail", "warn")
    for kind in kinds:
        found = {c["case"]: c["text"] for c in cases if c["verdict"] == kind}
        expected = want.get(kind, set())
        for case in sorted(found.keys() - expected):
            out.append(f"{library.stem}: case {case}: found {kind} (expected not): {found[case]}")
        for case in sorted(expected - found.keys()):
            other = cases[case - 1]
            out.append(f"{library.stem}: case {case}: found {other['verdict']} (expected {kind}): "
                       f"{other['text']}")
    conforms = not want.get("fail")
    if summary["conforms"] != conforms or status != (0 if conforms else 1):
        out.append(f"{library.stem}: conforms is {summary['conforms']}, exit status {status}")
    return out


def main() -> int:
    checker, zoo, table, only = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    expected = read_expected(pathlib.Path(table))
    libraries = sorted(zoo.glob("*.so"))
    problems = [f"{lib.stem}: not in {table}" for lib in libraries if lib.stem not in expected]
    problems += [f"{name}: in {table}, but not built" for name in expected
                 if not (zoo / f"{name}.so").exists()]
    chosen = [lib for lib in libraries if lib.stem in expected and (not only or lib.stem in only)]
    with concurrent.futures.ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
        for found in pool.map(lambda lib: problems_of(checker, lib, expected[lib.stem]), chosen):
            problems += found
    print("\n".join(problems) or f"{len(chosen)} plugins got exactly their verdicts")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
