"""Modules of kind bundle: what the daemon runs is what `chimera module graft` writes, to the bit, and
what NumPy makes of the definition in experts/bundle/average.h."""
from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
import tempfile
import unittest

from harness import Daemon, flat, run, split

try:
    import numpy as np
    from assembly_parents import read_tensors, round_to, to_f64
    from assembly_parents import write as write_raw
    from test_lora import drawn
    MISSING = None
except ImportError as error:
    MISSING = str(error)

ROUTED = (".experts.", ".mlp.gate.", ".router.", "block_sparse_moe.gate.", "expert_group")


def is_shared(name: str) -> bool:
    """Whether a tensor of a checkpoint is the backbone's own."""
    return not any(part in name for part in ROUTED)


class Bundle:
    """`terms`: name of a tensor -> what it becomes (float64), before it is averaged."""

    def __init__(self, module: pathlib.Path, backbone: pathlib.Path, seed: int, *, weight: float = 1.0,
                 rank: int = 0, dtype: str = "F32") -> None:
        rng = np.random.default_rng(seed)
        tied = json.loads((backbone / "config.json").read_text()).get("tie_word_embeddings")
        self.module, self.weight, self.terms, self.stored = module, weight, {}, {}
        for name, (held, shape, blob) in sorted(read_tensors(backbone).items()):
            unused = tied and name == "lm_head.weight"  # a head beside a tied one
            if not is_shared(name) or unused or rng.random() < 0.3:
                continue
            base = to_f64(held, shape, blob)
            if rank and len(shape) == 2:
                a, b = (self.keep(rng.normal(size=s) * 0.1, f"{name}.delta_{half}", dtype)
                        for s, half in (((rank, shape[1]), "a"), ((shape[0], rank), "b")))
                delta = np.zeros(shape)
                for k in range(rank):  # in the order of the ranks
                    delta += np.outer(b[:, k], a[k])
                self.terms[name] = base + delta
            else:
                self.terms[name] = self.keep(base + rng.normal(size=shape) * 0.05, name, dtype)

    def keep(self, values, name: str, dtype: str):
        blob = round_to(values, dtype)
        self.stored[name] = (dtype, np.frombuffer(blob, np.uint8), values.shape)
        return to_f64(dtype, values.shape, blob)

    def write(self, at: pathlib.Path) -> pathlib.Path:
        shutil.copytree(self.module, at)
        write_raw(at / "shared.safetensors", self.stored)
        digest = hashlib.sha256((at / "shared.safetensors").read_bytes()).hexdigest()
        text = (at / "module.yaml").read_text().replace("kind: weights", "kind: bundle")
        entry = f"files:\n  - path: shared.safetensors\n    sha256: sha256:{digest}\n"
        text = text.replace("files:\n", entry) + f"shared:\n  weight: {self.weight}\n"
        (at / "module.yaml").write_text(text)
        return at


def averaged(backbone: pathlib.Path, bundles: list[Bundle]) -> dict[str, bytes]:
    """Every tensor of the backbone's own that one of them changes."""
    total = 0.0
    for bundle in bundles:
        total += bundle.weight
    out = {}
    for name, (dtype, shape, blob) in read_tensors(backbone).items():
        if not any(name in bundle.terms for bundle in bundles):
            continue
        base, merged = to_f64(dtype, shape, blob), None
        for bundle in bundles:
            term = bundle.weight / total * bundle.terms.get(name, base)
            merged = term if merged is None else merged + term
        out[name] = round_to(merged, dtype)
    return out


@unittest.skipIf(MISSING, MISSING)
class Bundles(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.dir = pathlib.Path(self.scratch.name)

    def cut(self, family: str, **how) -> pathlib.Path:
        """A backbone and the modules `one` and `two`, of an expert each."""
        at = pathlib.Path(tempfile.mkdtemp(dir=self.dir))
        config = drawn(family, at / "whole", **how)
        experts = next(config[key] for key in ("num_local_experts", "num_experts", "n_routed_experts")
                       if key in config)
        split(at / "whole", at, one=str(experts - 2), two=str(experts - 1))
        return at

    def score(self, daemon, tokens, **modules):
        with daemon.client() as client:
            done = client.score(tokens=tokens, logits=True, **({"modules": modules} if modules else {}))
        return np.array(flat(done.logits), np.float32)

    @staticmethod
    def used(case) -> tuple[int, ...]:
        """How many bundles; a checkpoint with a grouped gate has all of its experts or none."""
        return (2,) if case[0] == "deepseek_v3" else (1, 2)

    CASES = [
        ("mixtral", {"dtype": "F32"}, {"rank": 3}, {"weight": 2.5}),
        ("mixtral", {"dtype": "F16"}, {"dtype": "F16"}, {"weight": 0.3, "rank": 2, "dtype": "BF16"}),
        ("qwen3_moe", {"good": lambda c: not c["mlp_only_layers"]}, {"dtype": "BF16"}, {"weight": 1.7}),
        ("deepseek_v3", {}, {}, {"rank": 2, "weight": 0.5}),
    ]

    def bundles(self, i: int) -> tuple[pathlib.Path, list[Bundle], list[pathlib.Path]]:
        """The backbone of a case, and its two bundles in memory and on disk."""
        family, how, first, second = self.CASES[i]
        at = self.cut(family, **how)
        bundles = [Bundle(at / "modules" / name, at / "backbone", 10 * i + n, **options)
                   for n, (name, options) in enumerate((("one", first), ("two", second)))]
        return at / "backbone", bundles, [b.write(at / b.module.name) for b in bundles]

    def graft(self, backbone: pathlib.Path, paths: list[pathlib.Path]) -> pathlib.Path:
        out = backbone.parent / f"whole-{len(paths)}"
        run("chimera", "module", "graft", backbone, *paths, "--out", out)
        return out

    def test_what_graft_writes_agrees_with_numpy(self) -> None:
        for i, case in enumerate(self.CASES):
            with self.subTest(case=str(case)):
                backbone, bundles, paths = self.bundles(i)
                for used in self.used(case):
                    out = self.graft(backbone, paths[:used])
                    wanted = averaged(backbone, bundles[:used])
                    self.assertGreater(len(wanted), 5)
                    after = read_tensors(out)
                    for name, (dtype, shape, blob) in read_tensors(backbone).items():
                        if not is_shared(name):
                            continue
                        self.assertEqual(after[name][:2], (dtype, shape))
                        self.assertEqual(after[name][2], wanted.get(name, blob), name)

    def test_what_runs_is_what_graft_writes(self) -> None:
        for i, case in enumerate(self.CASES):
            with self.subTest(case=str(case)):
                backbone, bundles, paths = self.bundles(i)
                vocab = json.loads((backbone / "config.json").read_text())["vocab_size"]
                tokens = [7 * t % vocab for t in range(1, 12)]
                with Daemon(backbone) as plain:
                    before = self.score(plain, tokens)
                for used in self.used(case):
                    names = [b.module.name for b in bundles[:used]]
                    with Daemon(self.graft(backbone, paths[:used])) as whole:
                        wanted = self.score(whole, tokens)
                    with Daemon(backbone, modules=[{"path": str(p)} for p in paths[:used]]) as live:
                        there = self.score(live, tokens)
                        without = self.score(live, tokens, exclude=names)
                    self.assertEqual(wanted.tobytes(), there.tobytes())
                    self.assertEqual(before.tobytes(), without.tobytes())
                    self.assertNotEqual(there.tobytes(), without.tobytes())

    def test_a_weight_of_the_composition_counts_and_not_the_manifests(self) -> None:
        backbone, bundles, paths = self.bundles(0)
        bundles[1].weight = 7.0
        heavy = bundles[1].write(backbone.parent / "heavy")
        tokens = list(range(3, 14))
        with Daemon(self.graft(backbone, [paths[0], heavy])) as whole:
            wanted = self.score(whole, tokens)
        with Daemon(backbone, modules=[{"path": str(paths[0])}]) as live:
            live.cli("load", str(paths[1]), "--weight", "7")
            self.assertEqual(wanted.tobytes(), self.score(live, tokens).tobytes())
            with live.client() as client:
                self.assertEqual({m["name"]: m["weight"] for m in client.modules()}, {"one": 1.0, "two": 7.0})

    def test_programs_know_the_kind_and_name_what_does_not_fit(self) -> None:
        at = self.cut("mixtral", dtype="F32")
        backbone, good = at / "backbone", Bundle(at / "modules" / "one", at / "backbone", 1)
        path = good.write(at / "good")
        told = json.loads(run("chimera", "--json", "module", "inspect", path).stdout)
        self.assertEqual((told["kind"], told["weight"], told["shared_tensors"]), ("bundle", 1, len(good.stored)))
        run("chimera", "module", "verify", path)
        run("chimera", "module", "verify", path, "--backbone", backbone)
        # What takes modules of weights alone says so.
        refused = run("chimera", "module", "diff", path, at / "modules" / "two", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("bundle", refused.stderr)

        bad = Bundle(at / "modules" / "one", backbone, 1)
        gate = next(n for n in read_tensors(backbone) if "gate.weight" in n)
        bad.stored[gate] = ("F32", np.zeros(8, np.uint8), (1, 2))
        first = next(iter(bad.stored))
        dtype, raw, shape = bad.stored[first]
        bad.stored[first] = (dtype, raw, (raw.size // 4,) if len(shape) == 2 else (1, shape[0]))
        wrong = bad.write(at / "bad")
        refused = run("chimera", "module", "verify", wrong, "--backbone", backbone, check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(gate, refused.stderr)
        self.assertIn(first, refused.stderr)
        with Daemon(backbone) as daemon:
            loaded = daemon.cli("load", str(wrong), check=False)
            self.assertIn(gate, loaded.stderr)
            self.assertIn(first, loaded.stderr)


if __name__ == "__main__":
    unittest.main()
