"""Runs of chimera module assemble that do not end well, and how much memory they take.

What is killed goes on to the same bytes, a full disk leaves nothing, and --memory is kept.
"""
from __future__ import annotations

import json
import pathlib
import resource
import signal
import subprocess
import sys
import unittest

try:
    import random_checkpoint
    from assembly_parents import Fixture, PROGRAM, run, variant
    MISSING = None
except ImportError as error:
    Fixture, MISSING = unittest.TestCase, str(error)

RECIPE = """
chimera: assembly/1
base: p0
parents: [{path: p1, lambda: 0.5}]
seed: 5
rules: [{tensors: routed_experts, method: dare_ties, density: 0.5}, {tensors: attention}]
"""
# The most resident memory of a program's children; a child's own count starts with its parent's, and
# that of this process is too large.
MEASURE = """
import os, sys
pid = os.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
print(used.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def files_of(directory: pathlib.Path) -> dict:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@unittest.skipIf(MISSING, MISSING)
class AssemblyRuns(Fixture):
    def killed_at(self, file_bytes: int, *words) -> None:
        """Runs until a file grows beyond `file_bytes`: the signal that this sends ends the process
        as SIGKILL does, without a handler, at the same write every time."""
        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        done = subprocess.run([str(PROGRAM), *map(str, words)], capture_output=True, timeout=120,
                              check=False, preexec_fn=limit)
        self.assertEqual(done.returncode, -signal.SIGXFSZ, done.stderr)

    def sharded(self, recipe: pathlib.Path) -> tuple:
        """A command that writes several shards, what it writes, and a size that not the first but a
        later shard exceeds."""
        size = (self.dir / "p0" / "model.safetensors").stat().st_size
        for parts in range(3, 20):
            words = ("assemble", recipe, "--shard-size", f"{size / parts / 1024:.3f}K", "--threads",
                     2, "--out")
            run(*words, self.dir / f"whole-{parts}")
            whole = files_of(self.dir / f"whole-{parts}")
            sizes = [len(whole[name]) for name in sorted(whole) if name.endswith(".safetensors")]
            if max(sizes) > sizes[0]:
                return words, whole, max(sizes) - 1
        raise AssertionError("no number of shards makes a later one larger than the first")

    def test_a_killed_run_goes_on_to_the_same_bytes(self) -> None:
        self.parents(seed=3)
        recipe = self.recipe(RECIPE)
        words, whole, limit = self.sharded(recipe)
        partial = self.dir / "again.partial"
        for _ in range(2):
            self.killed_at(limit, *words, self.dir / "again")
            self.assertTrue(partial.is_dir())
            self.assertFalse((self.dir / "again").exists())
        finished = {p.name: p.stat().st_ino for p in partial.glob("*.safetensors")}
        self.assertTrue(finished, "no shard was finished before the kill")
        report = json.loads(run("--json", *words, self.dir / "again").stdout)
        self.assertTrue(report["resumed"])
        self.assertEqual(files_of(self.dir / "again"), whole)
        for name, inode in finished.items():  # not written again
            self.assertEqual((self.dir / "again" / name).stat().st_ino, inode)
        self.assertFalse(partial.exists())

    def test_killed_before_anything_was_written(self) -> None:
        self.parents(seed=3)
        recipe = self.recipe(RECIPE)
        run("assemble", recipe, "--out", self.dir / "whole")
        self.killed_at(0, "assemble", recipe, "--out", self.dir / "again")
        self.assertTrue((self.dir / "again.partial").is_dir())
        run("assemble", recipe, "--out", self.dir / "again")
        self.assertEqual(files_of(self.dir / "again"), files_of(self.dir / "whole"))

    def test_parents_that_changed_meanwhile_are_another_run(self) -> None:
        self.parents(seed=3)
        recipe = self.recipe(RECIPE)
        self.killed_at(4096, "assemble", recipe, "--out", self.dir / "out")
        model = self.dir / "p1" / "model.safetensors"
        data = bytearray(model.read_bytes())
        data[-1] ^= 1
        model.write_bytes(data)
        done = run("assemble", recipe, "--out", self.dir / "out", ok=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("left by a run of other parents", done.stderr)

    def test_a_full_disk_leaves_nothing(self) -> None:
        self.parents(seed=3)
        recipe = self.recipe(RECIPE)
        disk = self.dir / "disk"
        disk.mkdir()
        size = (self.dir / "p0" / "model.safetensors").stat().st_size
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", disk],
                                 capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            self.skipTest(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
        try:
            done = run("assemble", recipe, "--out", disk / "deep" / "out", ok=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("No space left", done.stderr)
            self.assertEqual(list(disk.iterdir()), [])
        finally:
            subprocess.run(["umount", "-l", disk], check=True)

    def test_memory_is_kept(self) -> None:
        builder = random_checkpoint.Builder("olmoe", 1)
        builder.layers = builder.config["num_hidden_layers"] = 1
        builder.dtype = "F32"
        builder.heads = builder.kv_heads = 4
        builder.experts, builder.top_k = 8, 2
        builder.hidden = 512
        builder.width = 3072
        builder.config |= {"hidden_size": 512, "intermediate_size": 3072, "num_attention_heads": 4,
                           "num_key_value_heads": 4}
        builder.olmoe()
        builder.ends()
        (self.dir / "p0").mkdir()
        (self.dir / "p0" / "config.json").write_text(json.dumps(builder.config))
        random_checkpoint.write_safetensors(self.dir / "p0" / "model.safetensors", builder.tensors)
        variant(self.dir / "p0", self.dir / "p1", 1)
        limit = 64 << 20
        size = (self.dir / "p0" / "model.safetensors").stat().st_size
        self.assertGreater(size, 2 * limit)  # one parent alone is more
        for out, rest in (("ties", "rules: [{tensors: all, method: ties, density: 0.5}]\n"),
                          ("module", "rules: [{tensors: routed_experts, delta: 1}]\n"
                                     "output: {module: legal}\n"),
                          ("delta", "rules: [{tensors: all, delta: 1e-9}]\n")):
            recipe = self.recipe("chimera: assembly/1\nbase: p0\n"
                                 "parents: [{path: p1, lambda: 0.5}]\n" + rest)
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", MEASURE, PROGRAM, "assemble", recipe, "--out",
                 self.dir / out, "--memory", "64M", "--threads", "2"],
                capture_output=True, text=True, timeout=300, check=False)
            # δ = 1 is more than anything moved: there is nothing that differs.
            self.assertEqual(done.returncode, 1 if out == "module" else 0, done.stderr)
            used = int(done.stderr.splitlines()[-1]) << 10
            self.assertLess(used, limit, out)


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
