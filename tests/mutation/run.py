#!/usr/bin/env python3
"""Do the tests of the invariants fail when the invariant is broken?

    tests/mutation/run.py [--only N] [--work DIR] [--jobs N]

Copies the sources to DIR (default build/mutation), breaks one invariant at a time - one small change
of one line, as a mistake would be - builds what its tests need and runs them. A mutation that its
tests do not notice is a failure of this program, and so is a test that fails without one. About ten
minutes; not part of ./check. Standard library only.
"""
from __future__ import annotations

import argparse
import dataclasses
import pathlib
import subprocess
import sys
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("chimerad", "chimera", "chimera-module", "chimera-plugin-host")


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One mistake: `found` becomes `put` in `file`; `test` names the one that must notice."""

    invariant: str
    file: str
    found: str
    put: str
    test: str


MUTATIONS = (
    Mutation("1. composed again is bitwise the whole checkpoint", "router/moe.cc",
             "row_logits[i] = row_logits[i] + (part.bias[c] +",
             "row_logits[i] = row_logits[i] + (owner > 0 ? 1e-3f : 0.0f) + (part.bias[c] +",
             "system_test_composition"),
    Mutation("2. excluded is bitwise never loaded", "router/moe.cc",
             "active((mask & table->all()).add(0));",
             "active((static_cast<void>(mask), table->all()));",
             "system_test_composition"),
    Mutation("3. one epoch per sequence", "daemon/engine/epoch_board.cc",
             "return view.ok() && (*view)->scope == is.scope;", "return view.ok();",
             "daemon_engine_epochs_test"),
    Mutation("4. no pass touches a revoked module", "daemon/engine/epoch_board.cc",
             "module_index(command.revoked) >= 0 ||", "module_index(command.revoked) > 62 ||",
             "daemon_engine_epochs_test"),
    Mutation("5. a stream does not depend on its batch", "router/moe_experts.cc",
             "kernels.axpy(weight, outputs.data()",
             "kernels.axpy(rows > 8 ? weight * 1.000001f : weight, outputs.data()",
             "daemon_engine_epochs_test"),
    Mutation("6. a failed change leaves nothing", "daemon/registry/commit.cc",
             "const Status taken_back = options.store->retract();", "const Status taken_back;",
             "daemon_registry_faults_test"),
    Mutation("7. the prefix cache keeps to its composition", "router/routing_table.cc",
             "if (i != 0 && i < modules().size()) add(i);",
             "if (i > 62 && i < modules().size()) add(i);", "system_test_composition"),
    Mutation("8. acknowledged changes survive", "daemon/registry/state/store.cc",
             "const Status written = write_file_durably(env, target, text, 0600);",
             "const Status written = image.generation < 3\n"
             "      ? write_file_durably(env, target, text, 0600) : Status();",
             "system_test_crash"),
)


def sh(*command: str | pathlib.Path, cwd: pathlib.Path) -> None:
    """Runs a command that should work; shows its output when it does not."""
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout[-4000:]}")


class Copy:
    """The copy of the sources that is broken."""

    def __init__(self, work: pathlib.Path, jobs: int) -> None:
        self.source, self.build, self.jobs = work / "source", work / "source" / "build", str(jobs)
        self.source.mkdir(parents=True, exist_ok=True)
        files = subprocess.check_output(["git", "ls-files"], cwd=SOURCE, text=True).splitlines()
        for file in files:
            target, content = self.source / file, (SOURCE / file).read_bytes()
            if target.exists() and target.read_bytes() == content:
                continue  # keeps its time, so that nothing is built twice
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        shared = work / "shared"  # reference outputs lie beside the sources
        if not shared.exists() and (SOURCE.parent / "shared").exists():
            shared.symlink_to(SOURCE.parent / "shared")
        sh("cmake", "--preset", "release", cwd=self.source)

    def compile(self, test: str) -> None:
        """The programs, and the test where it is one of its own."""
        own = [] if test.startswith("system_test") else [test]
        sh("ninja", "-C", "build", "-j", self.jobs, *PROGRAMS, *own, cwd=self.source)

    def passes(self, test: str) -> bool:
        """Whether the test passes. Skipping is neither."""
        done = subprocess.run(["ctest", "--test-dir", "build", "--no-tests=error", "-V", "-R",
                               f"^{test}$"], cwd=self.source, capture_output=True, text=True)
        if "SKIPPED" in done.stdout or "skipped=" in done.stdout:
            raise SystemExit(f"{test} skips some of its cases (expected all to run; the reference "
                             "outputs are looked for in ../shared)")
        return done.returncode == 0

    def noticed(self, mutation: Mutation) -> bool:
        """Whether its test fails with the mutation. The copy is whole again afterwards."""
        path = self.source / mutation.file
        text = path.read_text()
        if text.count(mutation.found) != 1:
            raise SystemExit(f"{mutation.file}: found {text.count(mutation.found)} times, expected "
                             f"once: {mutation.found!r}. Adapt the mutation to the code.")
        path.write_text(text.replace(mutation.found, mutation.put))
        try:
            self.compile(mutation.test)
            return not self.passes(mutation.test)
        finally:
            path.write_text(text)


def main() -> int:
    """Parses arguments, tries every mutation, tells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, help="the mutation of this invariant")
    parser.add_argument("--work", type=pathlib.Path, default=SOURCE / "build" / "mutation")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    copy = Copy(args.work, args.jobs)
    chosen = [m for m in MUTATIONS if args.only is None or m.invariant.startswith(f"{args.only}.")]
    missed = 0
    for test in dict.fromkeys(m.test for m in chosen):
        copy.compile(test)
        if not copy.passes(test):
            raise SystemExit(f"{test} fails without any mutation (expected it to pass)")
    for mutation in chosen:
        begin = time.monotonic()
        noticed = copy.noticed(mutation)
        missed += not noticed
        print(f"{'noticed' if noticed else 'MISSED '} {mutation.invariant}  ({mutation.test}, "
              f"{time.monotonic() - begin:.0f} s)", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} mutations noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
