"""Reference outputs through the wire: logits, routing and greedy continuations of every golden
checkpoint of the supported families, in every config spelling, at f32 and bf16.

Tolerances: those of the golden manifest at f32 (1e-3 on logits, 1e-4 on router weights, ids
exact); at bf16 2e-2 of the largest |logit|. There the experts of checkpoints stored as f32 are
rounded to 8 bits of mantissa, which moves router logits (of size 1 to 3) by up to about 2^-9 of
their size: a token whose choice has a smaller margin may be routed elsewhere, so tokens from the
first such one on are not compared, as the golden manifest advises.
"""
import pathlib
import shutil
import tempfile
import unittest

from harness import SHARED_GOLDEN, Daemon, flat, golden_cases, read_safetensors

FAMILIES = ("flex_olmo", "olmoe", "mixtral")


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


@unittest.skipUnless(SHARED_GOLDEN.is_dir(), f"golden set absent: {SHARED_GOLDEN}")
class GoldenThroughTheWire(unittest.TestCase):
    def check_prompt(self, client, golden, i: int, precision: str) -> None:
        ids = golden[f"prompt.{i}.input_ids"]
        expected = golden[f"prompt.{i}.logits"]
        done = client.score(tokens=ids, logits=True, routing=True)
        found = flat(done.logits)
        self.assertEqual(len(found), len(expected))
        if precision == "bf16":
            comparable = self.tokens_before_a_tight_choice(golden, i, len(done.routing["layers"]))
            found = found[:comparable * len(expected) // len(ids)]
        worst = max((abs(a - b) for a, b in zip(found, expected)), default=0.0)
        if precision == "bf16":
            self.assertLessEqual(worst, 2e-2 * max(map(abs, expected)))
            return
        self.assertLessEqual(worst, 1e-3)
        self.check_routing(done.routing, golden, i)
        greedy = client.complete(tokens=ids, max_tokens=16, temperature=0, ignore_eos=True)
        self.assertEqual(greedy["tokens"], golden[f"prompt.{i}.greedy_ids"])

    def tokens_before_a_tight_choice(self, golden, i: int, layers: int) -> int:
        margins = [golden[f"prompt.{i}.router.{layer}.margin"] for layer in range(layers)]
        tight = [t for t, row in enumerate(zip(*margins)) if min(row) < 3 * 2**-9]
        return tight[0] if tight else len(margins[0])

    def check_routing(self, routing, golden, i: int) -> None:
        for layer, found in enumerate(routing["layers"]):
            ids = golden[f"prompt.{i}.router.{layer}.ids"]
            weights = golden[f"prompt.{i}.router.{layer}.weights"]
            self.assertEqual([e for row in found["ids"] for e in row], ids)
            for a, b in zip((w for row in found["weights"] for w in row), weights):
                self.assertLessEqual(abs(a - b), 1e-4)

    def check_model(self, name: str, precision: str) -> None:
        model_dir = SHARED_GOLDEN / "models" / name
        golden = read_safetensors(model_dir / "golden.safetensors")
        with tempfile.TemporaryDirectory() as scratch:
            for label, alt in variants(model_dir):
                checkpoint = with_config(model_dir, alt, pathlib.Path(scratch))
                with self.subTest(model=name, config=label, precision=precision), \
                        Daemon(checkpoint, precision=precision) as daemon, daemon.client() as client:
                    for i in range(6):
                        self.check_prompt(client, golden, i, precision)


def add_test(name: str, precision: str) -> None:
    def test(self: GoldenThroughTheWire) -> None:
        self.check_model(name, precision)
    setattr(GoldenThroughTheWire, f"test_{name}_at_{precision}", test)


if SHARED_GOLDEN.is_dir():
    for entry in golden_cases(*FAMILIES):
        for p in ("f32", "bf16"):
            add_test(entry["name"], p)

if __name__ == "__main__":
    unittest.main()
