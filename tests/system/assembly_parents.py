"""Assembling restated in NumPy and float64, and random parents to assemble; used by test_assembly*.py.

The restatement works on whole tensors with NumPy's own sums and sorts; only the draws of DARE are the
documented hash. Needs NumPy.
"""
from __future__ import annotations

import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

import numpy as np
import random_checkpoint

BUILD = pathlib.Path(os.environ.get("CHIMERA_BUILD",
                                    pathlib.Path(__file__).resolve().parents[2] / "build"))
PROGRAM = BUILD / "bin" / "chimera-module"


# --- files -------------------------------------------------------------------------------------------

def read_file(path: pathlib.Path) -> dict:
    blob = path.read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8:8 + length])
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        begin, end = (8 + length + at for at in entry["data_offsets"])
        out[name] = (entry["dtype"], tuple(entry["shape"]), blob[begin:end])
    return out


def read_tensors(directory: pathlib.Path) -> dict:
    out = {}
    for path in sorted(directory.glob("*.safetensors")):
        out |= read_file(path)
    return out


def to_f64(dtype: str, shape: tuple, blob: bytes):
    if dtype == "F32":
        values = np.frombuffer(blob, np.float32)
    elif dtype == "F16":
        values = np.frombuffer(blob, np.float16)
    else:
        values = (np.frombuffer(blob, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64).reshape(shape)


def round_to(values, dtype: str) -> bytes:
    """Float64 to nearest even, in one step."""
    if dtype == "F32":
        return values.astype(np.float32).tobytes()
    if dtype == "F16":
        return values.astype(np.float16).tobytes()
    # The two neighbours in BF16, and the nearer one; the even one of two that are as near.
    down = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint32)
    best = None
    for step in (-1, 0, 1):
        bits = (down.astype(np.int64) + step).clip(0).astype(np.uint32)
        value = (bits << 16).view(np.float32).astype(np.float64)
        gap = np.abs(value - values)
        gap[~np.isfinite(value)] = np.inf
        if best is None:
            best, best_gap = bits, gap
            continue
        better = (gap < best_gap) | ((gap == best_gap) & (bits % 2 == 0))
        best, best_gap = np.where(better, bits, best), np.where(better, gap, best_gap)
    return best.astype(np.uint16).tobytes()


E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def e4m3(codes):
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent, fraction = (codes >> 3) & 15, (codes & 7) / 8
    return sign * np.where(exponent == 0, fraction * 2.0**-6,
                           (1 + fraction) * 2.0**(exponent.astype(np.float64) - 7))


def widen(tensors: dict) -> tuple[dict, set]:
    """FP8 and MXFP4 weights as the plain F32 ones they stand for (gpt_oss keeps those transposed);
    and the names of these."""
    out, widened = {}, set()
    for name, (dtype, shape, blob) in tensors.items():
        raw = np.frombuffer(blob, np.uint8)
        if dtype == "F8_E4M3":
            _, blocks, scale = tensors[name + "_scale_inv"]
            scale = np.frombuffer(scale, np.float32).reshape(blocks)
            scale = scale.repeat(128, 0).repeat(128, 1)[:shape[0], :shape[1]]
            values = e4m3(raw.reshape(shape)).astype(np.float32) * scale
        elif name.endswith("_blocks"):
            name = name.removesuffix("_blocks")
            scale = np.frombuffer(tensors[name + "_scales"][2], np.uint8).reshape(shape[:-1])
            codes = np.stack([raw & 15, raw >> 4], -1).reshape(*shape[:-1], 32)
            values = np.array(E2M1)[codes & 7] * np.where(codes & 8, -1.0, 1.0)
            values = values * 2.0**(scale.astype(np.float64) - 127)[..., None]
            values = values.reshape(*shape[:2], -1).transpose(0, 2, 1).astype(np.float32)
        elif name.endswith(("_scales", "_scale_inv")):
            continue
        else:
            out[name] = (dtype, shape, blob)
            continue
        widened.add(name)
        out[name] = ("F32", values.shape, np.ascontiguousarray(values).tobytes())
    return out, widened


# --- the methods, restated ---------------------------------------------------------------------------

PHI = 0x9E3779B97F4A7C15


def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def drop(tau, seed: int, name: str, parent: int, density: float):
    if density >= 1:
        return tau
    digest = 0xCBF29CE484222325
    for byte in name.encode():
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        key = mix(mix(np.uint64(seed ^ digest)) + np.uint64(parent * PHI % 2**64))
        k = np.arange(1, tau.size + 1, dtype=np.uint64)
        u = (mix(key + k * np.uint64(PHI)) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return np.where(u.reshape(tau.shape) < density, tau / density, 0.0)


def trim(tau, density: float):
    if density >= 1:
        return tau
    k = max(1, int(density * tau.size))
    least = np.sort(np.abs(tau).ravel())[-k]
    return np.where(np.abs(tau) >= least, tau, 0.0)


def consensus(base, weighted, lam, kind: str, scale: float):
    weighted = np.stack(weighted)
    sign = np.where(weighted.sum(0) >= 0, 1.0, -1.0)
    agree = np.sign(weighted) == sign
    total = (weighted * agree).sum(0)
    weight = (np.array(lam).reshape((-1,) + (1,) * base.ndim) * agree).sum(0)
    if kind != "sum":
        factor = sum(lam) if kind == "paper" else 1.0
        with np.errstate(all="ignore"):
            total = np.where(weight != 0, total / weight * factor, total)
    return base + scale * total


def merge(parents, rule: dict, name: str, seed: int):
    base, lam, method = parents[0], rule["lambda"], rule["method"]
    density = rule.get("density", [1.0] * len(parents))
    scale, kind = rule.get("scale", 1.0), rule.get("consensus", "paper")
    tau = [p - base for p in parents]
    if method == "linear":
        return sum(l * p for l, p in zip(lam, parents))
    if method == "slerp":
        (a, b) = parents
        cosine = (a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b))
        if abs(cosine) > 0.9995:
            return (1 - lam[1]) * a + lam[1] * b
        omega = np.arccos(cosine)
        return (np.sin((1 - lam[1]) * omega) * a + np.sin(lam[1] * omega) * b) / np.sin(omega)
    if method == "task_arithmetic":
        return base + scale * sum(l * t for l, t in zip(lam[1:], tau[1:]))
    if method == "ties":
        tau = [trim(t, d) for t, d in zip(tau, density)]
    else:
        tau = [drop(t, seed, name, i, d) for i, (t, d) in enumerate(zip(tau, density))]
    weighted = [l * t for l, t in zip(lam[1:], tau[1:])]
    if method == "dare_linear":
        return base + scale * sum(weighted)
    return consensus(base, weighted, lam[1:], kind, scale)


def expected(parents: list, rule: dict | None, name: str, dtype: str, seed: int) -> bytes:
    """Bytes of one tensor; parents as (dtype, shape, bytes)."""
    values = [to_f64(*p) for p in parents]
    base = parents[0]
    if rule is not None:
        distance = max(np.sqrt(((v - values[0]) ** 2).mean()) for v in values[1:])
        if distance > rule.get("delta", 0.0):
            return round_to(merge(values, rule, name, seed), dtype)
    return base[2] if dtype == base[0] else round_to(values[0], dtype)


# --- running it ----------------------------------------------------------------------------------------

def run(*words, ok: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run([str(PROGRAM), *map(str, words)], capture_output=True, text=True,
                          timeout=120, check=False)
    if ok and done.returncode != 0:
        raise AssertionError(done.stderr)
    return done


def variant(source: pathlib.Path, target: pathlib.Path, seed: int, dtype: str | None = None) -> None:
    """The same checkpoint after some training: every number moved a little."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, (stored, shape, blob) in read_tensors(source).items():
        if stored not in ("F32", "F16", "BF16"):
            tensors[name] = (stored, np.frombuffer(blob, np.uint8).reshape(-1), shape)
            continue
        values = to_f64(stored, shape, blob)
        moved = values + rng.normal(size=values.shape) * 0.1
        kind = dtype or stored
        raw = np.frombuffer(round_to(moved, kind), np.uint8)
        tensors[name] = (kind, raw, shape)
    target.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors" and not path.name.endswith("index.json"):
            shutil.copy(path, target)
    write(target / "model.safetensors", tensors)


def plain_variant(source: pathlib.Path, target: pathlib.Path) -> None:
    """A quantised checkpoint, widened and trained a little, stored as BF16."""
    rng = np.random.default_rng(9)
    tensors, widened = widen(read_tensors(source))
    out = {}
    for name, (dtype, shape, blob) in tensors.items():
        moved = to_f64(dtype, shape, blob) + rng.normal(size=shape) * 0.1
        kind = "BF16" if name in widened else dtype
        out[name] = (kind, np.frombuffer(round_to(moved, kind), np.uint8), shape)
    target.mkdir()
    config = json.loads((source / "config.json").read_text())
    del config["quantization_config"]
    (target / "config.json").write_text(json.dumps(config))
    write(target / "model.safetensors", out)


def write(path: pathlib.Path, tensors: dict) -> None:
    header, blobs, at = {}, [], 0
    for name, (dtype, raw, shape) in tensors.items():
        blob = raw.tobytes()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def shard(directory: pathlib.Path, parts: int) -> None:
    """Cuts model.safetensors into shards with an index."""
    tensors = read_tensors(directory)
    names = list(tensors)
    (directory / "model.safetensors").unlink()
    weight_map = {}
    for i in range(parts):
        file = f"model-{i + 1:05}-of-{parts:05}.safetensors"
        chosen = names[i::parts]
        write(directory / file, {n: (tensors[n][0], np.frombuffer(tensors[n][2], np.uint8),
                                     tensors[n][1]) for n in chosen})
        weight_map |= {n: file for n in chosen}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


class Fixture(unittest.TestCase):
    """A scratch folder with parents p0, p1, …, and what is assembled of them."""

    def setUp(self) -> None:
        self.temp = tempfile.TemporaryDirectory()
        self.dir = pathlib.Path(self.temp.name)
        self.addCleanup(self.temp.cleanup)
        os.environ["XDG_CACHE_HOME"] = str(self.dir / "cache")

    def parents(self, family: str = "olmoe", count: int = 2, seed: int = 0, dtype=None) -> None:
        random_checkpoint.build(family, seed, self.dir / "p0")
        for i in range(1, count):
            variant(self.dir / "p0", self.dir / f"p{i}", i, dtype)

    def recipe(self, text: str) -> pathlib.Path:
        path = self.dir / "recipe.yaml"
        path.write_text(text)
        return path

    def assemble(self, text: str, *words, out: str = "out") -> dict:
        run("assemble", self.recipe(text), "--out", self.dir / out, *words)
        return read_tensors(self.dir / out)

    def check(self, found: dict, count: int, rule_of, dtype: str | None = None,
              seed: int = 0) -> None:
        """What was assembled is what the restatement says; quantised parents count as widened, and
        what the base has quantised comes out as BF16."""
        parents = [widen(read_tensors(self.dir / f"p{i}"))[0] for i in range(count)]
        _, widened = widen(read_tensors(self.dir / "p0"))
        self.assertEqual(set(found), set(parents[0]))
        merged = 0
        for name, (kind, shape, blob) in found.items():
            rule = rule_of(name)
            merged += rule is not None
            want = dtype or ("BF16" if name in widened else parents[0][name][0])
            self.assertEqual((kind, shape), (want, parents[0][name][1]), name)
            self.same(blob, expected([p[name] for p in parents], rule, name, want, seed), want, name,
                      rule)
        self.assertGreater(merged, 0)

    def same(self, blob: bytes, want: bytes, dtype: str, name: str, rule: dict | None) -> None:
        if blob == want:
            return
        self.assertTrue(rule and rule["method"] == "slerp", f"{name}: not the same bits")
        # The angle comes from sums that NumPy adds in another order: one unit in the last place.
        bits = np.uint32 if dtype == "F32" else np.uint16
        a, b = np.frombuffer(blob, bits).astype(np.int64), np.frombuffer(want, bits).astype(np.int64)
        self.assertLessEqual(np.abs(a - b).max(), 1, name)
        self.assertLess((a != b).mean(), 1e-2, name)
