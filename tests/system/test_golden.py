"""Reference outputs through the wire: logits, routing and greedy continuations of every golden
checkpoint, in every config spelling, at f32 and bf16: those of the shared set, quantised release
formats included, and those of tests/golden/families, which show further options.

Tolerances: those of the golden manifest at f32 (1e-3 on logits, 1e-4 on router weights, ids
exact); at bf16 2e-2 of the largest |logit|. There the experts of checkpoints stored as f32 are
rounded to 8 bits of mantissa, which moves router logits (of size 1 to 3) by up to about 2^-9 of
their size: a token whose choice has a smaller margin may be routed elsewhere, so tokens from the
first such one on are not compared, as the golden manifest advises.
"""
import json
import pathlib
import re
import shutil
import tempfile
import unittest

from harness import GOLDEN, SHARED_GOLDEN, Daemon, flat, read_safetensors

OWN = GOLDEN / "families"


def variants(model_dir: pathlib.Path):
    yield "config.json", None
    for alt in sorted((model_dir / "alt_configs").glob("*.json")):
        yield alt.name, alt


def with_config(model_dir: pathlib.Path, alt: pathlib.Path | None, into: pathlib.Path) -> pathlib.Path:
    if alt is None:
        return model_dir
    target = into / alt.stem
    target.mkdir()
    for file in model_dir.iterdir():
        if file.is_file() and file.name not in ("config.json", "golden.safetensors"):
            (target / file.name).symlink_to(file)
    shutil.copyfile(alt, target / "config.json")
    return target


def golden_dirs() -> list[pathlib.Path]:
    """Checkpoints with a golden.safetensors beside them."""
    roots = [OWN, SHARED_GOLDEN / "models"]
    return [d for root in roots if root.is_dir() for d in sorted(root.iterdir()) if d.is_dir()]


class GoldenThroughTheWire(unittest.TestCase):
    def test_the_shared_set_is_there(self) -> None:
        if not SHARED_GOLDEN.is_dir():
            self.skipTest(f"golden set absent: {SHARED_GOLDEN}")
        manifest = json.loads((SHARED_GOLDEN / "manifest.json").read_text())
        self.assertLessEqual({m["name"] for m in manifest["models"]},
                             {d.name for d in golden_dirs()})

    def check_prompt(self, client, golden, i: int, precision: str) -> None:
        ids = golden[f"prompt.{i}.input_ids"]
        expected = golden[f"prompt.{i}.logits"]
        done = client.score(tokens=ids, logits=True, routing=True)
        found = flat(done.logits)
        self.assertEqual(len(found), len(expected))
        if precision == "bf16":
            comparable = self.tokens_before_a_tight_choice(golden, i)
            found = found[:comparable * len(expected) // len(ids)]
        worst = max((abs(a - b) for a, b in zip(found, expected)), default=0.0)
        if precision == "bf16":
            self.assertLessEqual(worst, 2e-2 * max(map(abs, expected)))
            return
        self.assertLessEqual(worst, 1e-3)
        self.check_routing(done.routing, golden, i)
        wanted = golden[f"prompt.{i}.greedy_ids"]
        greedy = client.complete(tokens=ids, max_tokens=len(wanted), temperature=0, ignore_eos=True)
        self.assertEqual(greedy["tokens"], wanted)

    def routed_layers(self, golden, i: int) -> list[int]:
        """Layers with a router; none in dense families."""
        names = [re.fullmatch(rf"prompt\.{i}\.router\.(\d+)\.ids", name) for name in golden]
        return sorted(int(match[1]) for match in names if match)

    def tokens_before_a_tight_choice(self, golden, i: int) -> int:
        margins = [golden[f"prompt.{i}.router.{layer}.margin"]
                   for layer in self.routed_layers(golden, i)]
        tight = [t for t, row in enumerate(zip(*margins)) if min(row) < 3 * 2**-9]
        return tight[0] if tight else len(golden[f"prompt.{i}.input_ids"])

    def check_routing(self, routing, golden, i: int) -> None:
        for layer in self.routed_layers(golden, i):
            found = routing["layers"][layer]
            ids = golden[f"prompt.{i}.router.{layer}.ids"]
            weights = golden[f"prompt.{i}.router.{layer}.weights"]
            self.assertEqual([e for row in found["ids"] for e in row], ids)
            for a, b in zip((w for row in found["weights"] for w in row), weights):
                self.assertLessEqual(abs(a - b), 1e-4)

    def check_model(self, model_dir: pathlib.Path, precision: str) -> None:
        golden = read_safetensors(model_dir / "golden.safetensors")
        prompts = sum(name.endswith(".input_ids") for name in golden if name[0] != "#")
        self.assertGreater(prompts, 0)
        with tempfile.TemporaryDirectory() as scratch:
            for label, alt in variants(model_dir):
                checkpoint = with_config(model_dir, alt, pathlib.Path(scratch))
                with self.subTest(model=model_dir.name, config=label, precision=precision), \
                        Daemon(checkpoint, precision=precision) as daemon, daemon.client() as client:
                    for i in range(prompts):
                        self.check_prompt(client, golden, i, precision)


def add_test(model_dir: pathlib.Path, precision: str) -> None:
    def test(self: GoldenThroughTheWire) -> None:
        self.check_model(model_dir, precision)
    setattr(GoldenThroughTheWire, f"test_{model_dir.name}_at_{precision}", test)


for directory in golden_dirs():
    for p in ("f32", "bf16"):
        add_test(directory, p)

if __name__ == "__main__":
    unittest.main()
