"""chimera module fit-gate: rows that were fitted to texts do for a module what its own did.

The row of the issue, on the demo and in a daemon: `legal` with random gate rows, fitted to the first
part of the excerpts, recovers 80 % of its gain on the rest, and general text loses 1 % at the most.
"""
from __future__ import annotations

import json
import math
import pathlib
import random
import shutil
import struct
import tempfile
import unittest

from harness import DEMO, Daemon, chimera_client, run

EXCERPTS = DEMO / "train" / "excerpts"
FIT_BYTES = 15_000  # of each text; what comes after them is measured
PIECE = 1200        # bytes that are scored together: within the context


def forget_gates(module: pathlib.Path, seed: int = 7) -> None:
    """Puts random rows in the place of a module's own."""
    path = module / "weights.safetensors"
    blob = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", blob)
    rng = random.Random(seed)
    for name, entry in json.loads(blob[8:8 + length]).items():
        if ".gate." not in name:
            continue
        assert entry["dtype"] == "F32", entry
        for at in range(*(8 + length + at for at in entry["data_offsets"]), 4):
            struct.pack_into("<f", blob, at, rng.gauss(0, 0.1))
    path.write_bytes(blob)
    manifest = module / "module.yaml"  # what is promised of its own gates does not hold any more
    manifest.write_text("\n".join(line for line in manifest.read_text().splitlines()
                                  if "max_bits_per_byte" not in line) + "\n")
    run("chimera", "module", "seal", str(module), "--backbone", str(DEMO / "backbone"))


def bits_per_byte(client: chimera_client.Client, text: str) -> float:
    pieces = [text[at:at + PIECE] for at in range(0, len(text), PIECE)]
    nats = sum(client.score(piece).done["nats"] for piece in pieces)
    return nats / math.log(2) / len(text.encode())


class FitGate(unittest.TestCase):
    def setUp(self) -> None:
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="chimera-fit-"))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        self.rest = {}
        for name in ("legal", "general"):
            text = (EXCERPTS / f"{name}.txt").read_text()
            (self.work / f"{name}.txt").write_text(text[:FIT_BYTES])
            self.rest[name] = text[FIT_BYTES:]
        self.forgotten = self.work / "legal"
        shutil.copytree(DEMO / "legal", self.forgotten)
        forget_gates(self.forgotten)

    def fit(self, out: str, *options: str, check: bool = True):
        return run("chimera", "--json", "module", "fit-gate", str(self.forgotten), "--backbone",
                   str(DEMO / "backbone"), "--out", str(self.work / out), *options, check=check)

    def test_recovers_what_random_rows_lose(self) -> None:
        text, against = str(self.work / "legal.txt"), str(self.work / "general.txt")
        ran = self.fit("fitted", "--text", text, "--against", against)
        told = json.loads(ran.stdout)
        self.assertGreater(told["text"]["after"]["share"], told["text"]["before"]["share"])
        self.assertLess(told["text"]["after"]["bits_per_byte"], told["text"]["backbone"]["bits_per_byte"])
        bits = {}
        with Daemon(DEMO / "backbone", precision="f32") as daemon, daemon.client() as client:
            for module in (None, DEMO / "legal", self.forgotten, self.work / "fitted"):
                if module is not None:
                    client.load(module)
                bits[module] = {name: bits_per_byte(client, rest) for name, rest in self.rest.items()}
        bare, own = bits[None], bits[DEMO / "legal"]
        forgotten, fitted = bits[self.forgotten], bits[self.work / "fitted"]
        gain = bare["legal"] - own["legal"]
        recovered = (bare["legal"] - fitted["legal"]) / gain
        print(f"legal: backbone {bare['legal']:.4f}, own gates {own['legal']:.4f}, random {forgotten['legal']:.4f}, "
              f"fitted {fitted['legal']:.4f}: {recovered:.1%} of the gain; general: {bare['general']:.4f}, "
              f"{own['general']:.4f}, {forgotten['general']:.4f}, {fitted['general']:.4f}")
        self.assertGreater(gain, 0)
        self.assertGreaterEqual(recovered, 0.8)
        self.assertLessEqual(fitted["general"], 1.01 * bare["general"])
        # It would not have done without.
        self.assertLess((bare["legal"] - forgotten["legal"]) / gain, 0.8)
        manifest = (self.work / "fitted" / "module.yaml").read_text()
        self.assertIn("fit_gate", manifest)

    def test_what_it_cannot_do_is_told_and_nothing_is_written(self) -> None:
        text = str(self.work / "legal.txt")
        short = self.work / "short.txt"
        short.write_text("a few words")
        for options, status, told in (
                ((), 2, "--text: found none"), (("--text", text, "--rounds", "0"), 2, "--rounds: 0"),
                (("--text", str(short)), 1, "expected at least"),
                (("--text", str(self.work / "nowhere")), 1, "nowhere"),
                (("--text", text, "--precision", "f64"), 2, "f64")):
            ran = self.fit("out", *options, check=False)
            self.assertEqual(ran.returncode, status, ran.stderr)
            self.assertIn(told, ran.stderr)
        self.assertFalse((self.work / "out").exists() or (self.work / "out.partial").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
