"""Every family with random options and weights, through the wire, against an independent forward
pass in NumPy and float64 (the shared golden set's reference.py; skipped with a message without it).

Where the goldens show chosen examples of config keys, this shows their combinations. More of them:
CHIMERA_RANDOM_CASES=200 python3 tests/system/test_random_families.py
"""
from __future__ import annotations

import importlib.util
import os
import pathlib
import tempfile
import unittest

from harness import SHARED_GOLDEN, Daemon, flat

REFERENCE = SHARED_GOLDEN.parent / "reference.py"
CASES = int(os.environ.get("CHIMERA_RANDOM_CASES", "3"))
FIRST = int(os.environ.get("CHIMERA_RANDOM_FIRST", "0"))
LENGTHS = (41, 6)
GREEDY = 10
# f32 against float64: as the golden manifest. Logits here are of size 1 to 10 as there.
LOGITS, WEIGHTS = 1e-3, 1e-4

try:
    import numpy as np
    import random_checkpoint
    MISSING = None if REFERENCE.exists() else f"reference absent: {REFERENCE}"
except ImportError as error:
    MISSING = str(error)


def reference_model(directory: pathlib.Path):
    spec = importlib.util.spec_from_file_location("reference", REFERENCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Model(str(directory))


@unittest.skipIf(MISSING, MISSING)
class RandomFamilies(unittest.TestCase):
    def check_scores(self, client, model, ids) -> None:
        expected, chosen, _ = model.forward(ids)
        done = client.score(tokens=ids.tolist(), logits=True, routing=True)
        found = np.array(flat(done.logits)).reshape(expected.shape)
        self.assertLessEqual(np.abs(found - expected).max(), LOGITS)
        for layer, (experts, weights) in chosen.items():
            order = np.argsort(-weights, -1, kind="stable")
            row = done.routing["layers"][layer]
            np.testing.assert_array_equal(np.array(row["ids"]),
                                          np.take_along_axis(experts, order, -1))
            np.testing.assert_allclose(np.array(row["weights"]),
                                       np.take_along_axis(weights, order, -1), atol=WEIGHTS, rtol=0)

    def check_greedy(self, client, model, ids) -> None:
        """Token by token: the cache gives what the whole sequence gives."""
        done = client.complete(tokens=ids.tolist(), max_tokens=GREEDY, temperature=0, ignore_eos=True)
        logits, _, _ = model.forward(np.concatenate([ids, done["tokens"][:-1]]))
        for row, token in zip(logits[len(ids) - 1:], done["tokens"]):
            self.assertLessEqual(row.max() - row[token], 2 * LOGITS)

    def check(self, family: str, seed: int) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            directory = pathlib.Path(scratch) / family
            config = random_checkpoint.build(family, seed, directory)
            model = reference_model(directory)
            rng = np.random.default_rng(seed)
            with self.subTest(family=family, seed=seed, config=config), \
                    Daemon(directory, serve={"max_context": random_checkpoint.MAX_POSITION}) as daemon, \
                    daemon.client() as client:
                for length in LENGTHS:
                    ids = rng.integers(0, config.get("text_config", config)["vocab_size"], length)
                    self.check_scores(client, model, ids)
                    self.check_greedy(client, model, ids)


def add_test(family: str) -> None:
    def test(self: RandomFamilies) -> None:
        for seed in range(FIRST, FIRST + CASES):
            self.check(family, seed)
    setattr(RandomFamilies, f"test_{family}", test)


if MISSING is None:
    for name in random_checkpoint.FAMILIES:
        add_test(name)

if __name__ == "__main__":
    unittest.main(warnings="ignore")  # reference.py leaves closing its files to the collector
