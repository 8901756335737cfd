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
import tempfile

import zoo_modules


def read_expected(path: pathlib.Path) -> dict[str, dict[str, set[int]]]:
    """Lines "name: fail 3 45" or "name: strict; skip 8 32": the cases that do not pass. Skips count
    only for plugins that keep the contract; for the others any skip is fine."""
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


def problems_of(name: str, command: list[str], want: dict[str, set[int]]) -> list[str]:
    """What is otherwise than wanted; a skip counts when `want` has an entry for skips."""
    done = subprocess.run([*command, "--json", "--seed", "1"], text=True, capture_output=True,
                          timeout=600)
    if done.returncode not in (0, 1):
        return [f"{name}: exit status {done.returncode}: {done.stderr}"]
    *cases, summary = [json.loads(line) for line in done.stdout.splitlines()]
    if [c["case"] for c in cases] != list(range(1, 48)) or summary["type"] != "summary":
        return [f"{name}: found {len(cases)} cases (expected 1 to 47 and a summary)"]
    out = []
    for kind in ("fail", "warn", "skip") if "skip" in want else ("fail", "warn"):
        found = {c["case"]: c["text"] for c in cases if c["verdict"] == kind}
        expected = want.get(kind, set())
        out += [f"{name}: case {case}: found {kind} (expected not): {found[case]}"
                for case in sorted(found.keys() - expected)]
        out += [f"{name}: case {case}: found {cases[case - 1]['verdict']} (expected {kind}): "
                f"{cases[case - 1]['text']}" for case in sorted(expected - found.keys())]
    conforms = not want.get("fail")
    if summary["conforms"] != conforms or done.returncode != (0 if conforms else 1):
        out.append(f"{name}: conforms is {summary['conforms']}, exit status {done.returncode}")
    return out


def libraries(checker: str, zoo: pathlib.Path, expected: dict) -> list[tuple]:
    return [(name, [checker, str(zoo / f"{name}.so"), "--level",
                    "strict" if "strict" in want else "normal"], want)
            for name, want in expected.items()]


def modules(checker: str, zoo: pathlib.Path, work: pathlib.Path) -> list[tuple]:
    out = []
    for v in zoo_modules.VARIANTS:
        folder, reference = zoo_modules.make(v, zoo / "modules", work)
        want = {"fail": v.fail} if v.skip is None else {"skip": v.skip}
        out.append((v.name, [checker, str(folder), "--level", v.level, "--reference",
                             str(reference)], want))
    text = work / "text.so"
    text.write_text("This is no library.\n")
    cut = work / "cut.so"
    cut.write_bytes((zoo / "good.so").read_bytes()[:9000])
    return out + [(path.stem, [checker, str(path)], {"fail": {1, 10}}) for path in (text, cut)]


def usage_problems(checker: str, zoo: pathlib.Path) -> list[str]:
    """Calls that are wrong end with status 2; --list and one case work."""
    good = str(zoo / "good.so")
    out = []
    for arguments, status in (([], 2), (["/no/such.so"], 2), ([good, "--level", "x"], 2),
                              ([good, "--case", "48"], 2), ([good, "--reproduce", "27"], 2),
                              (["--list"], 0), ([good, "--reproduce", "27:5"], 0),
                              ([good, "--case", "27", "--in-process"], 0), (["--help"], 0)):
        done = subprocess.run([checker, *arguments], text=True, capture_output=True, timeout=60)
        if done.returncode != status:
            out.append(f"{arguments}: exit status {done.returncode} (expected {status})")
    return out


def main() -> int:
    checker, zoo, table, only = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    expected = read_expected(pathlib.Path(table))
    built = {lib.stem for lib in zoo.glob("*.so")}
    problems = [f"{name}: not in {table}" for name in sorted(built - expected.keys())]
    problems += [f"{name}: in {table}, but not built" for name in expected.keys() - built]
    with tempfile.TemporaryDirectory(prefix="chimera-zoo-") as work:
        runs = libraries(checker, zoo, expected) + modules(checker, zoo, pathlib.Path(work))
        runs = [r for r in runs if not only or r[0] in only]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for found in pool.map(lambda run: problems_of(*run), runs):
                problems += found
    problems += usage_problems(checker, zoo)
    print("\n".join(problems) or f"{len(runs)} plugins and modules got exactly their verdicts")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
