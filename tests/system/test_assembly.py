"""chimera module assemble and diff against an independent restatement in NumPy and float64.

Parents are random checkpoints of several families, dtypes and layouts; every rule kind, method,
sharding and output is covered (assembly_parents.py restates them).
"""
from __future__ import annotations

import json
import re
import shutil
import sys
import unittest

try:
    import numpy as np
    import random_checkpoint
    from assembly_parents import (Fixture, expected, plain_variant, read_tensors, run, shard, to_f64,
                                  write)
    MISSING = None
except ImportError as error:
    Fixture, MISSING = unittest.TestCase, str(error)


@unittest.skipIf(MISSING, MISSING)
class Assembly(Fixture):
    # --- methods ---------------------------------------------------------------------------------------

    def test_every_method(self) -> None:
        self.parents(count=3)
        base = "chimera: assembly/1\nbase: p0\nparents:\n  - {path: p1, lambda: 0.3}\n" \
               "  - {path: p2, lambda: 0.25}\nseed: 7\n"
        lam = [1 - 0.3 - 0.25, 0.3, 0.25]
        for method, density in (("linear", 1), ("task_arithmetic", 1), ("ties", 0.4),
                                ("dare_linear", 0.6), ("dare_ties", 0.5)):
            with self.subTest(method):
                text = base + f"rules:\n  - {{tensors: all, method: {method}, density: {density}}}\n"
                rule = {"method": method, "lambda": lam, "density": [density] * 3}
                self.check(self.assemble(text, out=method), 3, lambda name: rule, seed=7)

    def test_slerp(self) -> None:
        self.parents()
        found = self.assemble("chimera: assembly/1\nbase: p0\nparents: [{path: p1, lambda: 0.3}]\n"
                              "rules: [{tensors: attention, method: slerp}]\n")
        rule = {"method": "slerp", "lambda": [0.7, 0.3]}
        self.check(found, 2, lambda name: rule if "self_attn." in name else None)

    # --- rules -----------------------------------------------------------------------------------------

    def test_first_match_wins_over_every_kind_of_rule(self) -> None:
        self.parents(seed=3)
        found = self.assemble(r"""
chimera: assembly/1
base: p0
parents: [{path: p0, lambda: 0.4}, {path: p1, lambda: 0.6}]
rules:
  - {tensors: routed_experts, layers: 0, experts: "1-2", lambda: {p1: 0.9}}
  - {tensors: "*.self_attn.q_proj.*", method: task_arithmetic, lambda: {p1: -0.5}}
  - {tensors: '/experts\.\d+\.down_proj/', lambda: {p0: 0.1, p1: 0.9}}
  - {tensors: embeddings}
""")

        def rule_of(name: str):
            linear = lambda a, b: {"method": "linear", "lambda": [a, b]}
            if re.search(r"layers\.0\.mlp\.experts\.[12]\.", name):
                return linear(1 - 0.9, 0.9)
            if ".self_attn.q_proj." in name:
                return {"method": "task_arithmetic", "lambda": [1.5, -0.5]}
            if re.search(r"experts\.\d+\.down_proj", name):
                return linear(0.1, 0.9)
            return linear(0.4, 0.6) if "embed" in name or name.startswith("lm_head") else None

        self.check(found, 2, rule_of)

    def test_default_is_routed_experts(self) -> None:
        self.parents()
        found = self.assemble("chimera: assembly/1\nbase: p0\nparents: [{path: p1, lambda: 0.5}]\n")
        rule = {"method": "linear", "lambda": [0.5, 0.5]}
        self.check(found, 2, lambda name: rule if ".experts." in name else None)

    def test_no_part_of_others_or_a_huge_delta_is_the_base_bit_for_bit(self) -> None:
        self.parents()
        base = read_tensors(self.dir / "p0")
        for out, rest in (("lambda", "parents: [{path: p0, lambda: 1}, {path: p1, lambda: 0}]\n"
                                     "rules: [{tensors: all}]\n"),
                          ("delta", "parents: [{path: p1, lambda: 0.5}]\n"
                                    "rules: [{tensors: all, delta: 1000}]\n")):
            found = self.assemble("chimera: assembly/1\nbase: p0\n" + rest, out=out)
            self.assertEqual(found, base)

    def test_delta_decides_tensor_by_tensor(self) -> None:
        self.parents()
        found = self.assemble("chimera: assembly/1\nbase: p0\nparents: [{path: p1, lambda: 0.5}]\n"
                              "rules: [{tensors: all, delta: 0.1}]\n")
        rule = {"method": "linear", "lambda": [0.5, 0.5], "delta": 0.1}
        self.check(found, 2, lambda name: rule)
        base = read_tensors(self.dir / "p0")
        same = sum(found[name] == base[name] for name in base)
        self.assertTrue(0 < same < len(base), same)

    # --- storage -----------------------------------------------------------------------------------------

    def test_families_dtypes_and_shards(self) -> None:
        for i, (family, seed, kind) in enumerate((("mixtral", 1, "F32"), ("qwen3_moe", 2, "BF16"),
                                                  ("deepseek_v3", 3, None), ("gpt_oss", 4, None),
                                                  ("llama4_text", 5, None), ("llama", 6, "F16"))):
            with self.subTest(family):
                for name in ("p0", "p1"):
                    shutil.rmtree(self.dir / name, ignore_errors=True)
                self.parents(family, seed=seed, dtype=kind)
                if i % 2 == 0:
                    shard(self.dir / "p0", 3)
                if i % 3 == 0:
                    shard(self.dir / "p1", 2)
                found = self.assemble("chimera: assembly/1\nbase: p0\n"
                                      "parents: [{path: p1, lambda: 0.3}]\n"
                                      "rules: [{tensors: all}]\n", "--threads", i % 3 + 1, out=family)
                opaque = {n for n, t in read_tensors(self.dir / "p0").items()
                          if t[0] not in ("F32", "F16", "BF16")}
                self.assertEqual(opaque, set())
                rule = {"method": "linear", "lambda": [0.7, 0.3]}
                self.check(found, 2, lambda name: rule)

    def test_quantised_parents_are_widened(self) -> None:
        for family in ("deepseek_v3", "gpt_oss"):
            at = self.dir / family
            at.mkdir()
            seed = 0
            while not random_checkpoint.build(family, seed, at / str(seed)).get("quantization_config"):
                seed += 1
            packed, plain = at / str(seed), at / "plain"
            plain_variant(packed, plain)
            # The same model with other codes.
            other = at / "other"
            shutil.copytree(packed, other)
            tensors = {n: (t[0], np.frombuffer(t[2], np.uint8).copy(), t[1])
                       for n, t in read_tensors(packed).items()}
            for name, (dtype, raw, _) in tensors.items():
                if dtype == "F8_E4M3" or name.endswith("_blocks"):
                    raw ^= np.uint8(0x11)
            write(other / "model.safetensors", tensors)
            for i, parents in enumerate(((packed, plain), (plain, packed), (packed, other))):
                with self.subTest(family=family, parents=[p.name for p in parents]):
                    for name, parent in zip(("p0", "p1"), parents):
                        (self.dir / name).unlink(missing_ok=True)
                        (self.dir / name).symlink_to(parent)
                    for rules in ("all", "attention"):
                        found = self.assemble("chimera: assembly/1\nbase: p0\n"
                                              "parents: [{path: p1, lambda: 0.3}]\n"
                                              f"rules: [{{tensors: {rules}}}]\n",
                                              out=f"{family}-{i}-{rules}")
                        rule = {"method": "linear", "lambda": [0.7, 0.3]}
                        taken = re.compile("" if rules == "all" else "attn")
                        self.check(found, 2, lambda name: rule if taken.search(name) else None)
                    config = json.loads((self.dir / f"{family}-{i}-all" / "config.json").read_text())
                    self.assertNotIn("quantization_config", config)

    def test_output_dtype_is_rounded_once(self) -> None:
        self.parents(seed=5, dtype="F32")
        for dtype in ("F32", "F16", "BF16"):
            found = self.assemble("chimera: assembly/1\nbase: p0\n"
                                  "parents: [{path: p1, lambda: 0.5}]\n"
                                  f"output: {{dtype: {dtype.lower()}}}\n", out=dtype)
            rule = {"method": "linear", "lambda": [0.5, 0.5]}
            self.check(found, 2, lambda name: rule if ".experts." in name else None, dtype)

    def test_same_bytes_again_whatever_the_threads(self) -> None:
        self.parents(count=3)
        text = "chimera: assembly/1\nbase: p0\nparents: [{path: p1, lambda: 0.5}, " \
               "{path: p2, lambda: 0.2}]\nseed: 3\n" \
               "rules: [{tensors: all, method: dare_ties, density: 0.5}]\n"
        files = []
        for out, threads in (("one", 1), ("two", 2), ("five", 5)):
            self.assemble(text, "--threads", threads, out=out)
            files.append({p.name: p.read_bytes() for p in (self.dir / out).iterdir()})
        self.assertEqual(files[0], files[1])
        self.assertEqual(files[0], files[2])
        record = json.loads(files[0]["assembly.json"])
        self.assertEqual(len(record["parents"]), 3)
        self.assertTrue(record["parents"][0]["digest"].startswith("sha256:"))

    def test_module_of_what_differs_grafts_to_the_whole(self) -> None:
        self.parents()
        text = "chimera: assembly/1\nbase: p0\nparents: [{path: p1, lambda: 0.5}]\n" \
               "rules: [{tensors: routed_experts, layers: 0, experts: 1-2}]\n"
        whole = self.assemble(text, out="whole")
        run("assemble", self.recipe(text + "output: {module: legal}\n"), "--out", self.dir / "legal")
        run("verify", self.dir / "legal", "--backbone", self.dir / "p0")
        run("graft", self.dir / "p0", self.dir / "legal", "--out", self.dir / "grafted")
        self.assertEqual(read_tensors(self.dir / "grafted"), whole)
        self.assertEqual(len(read_tensors(self.dir / "legal")), 6)

    def test_modules_as_parents(self) -> None:
        self.parents(count=3)
        for parent, module in (("p1", "m1"), ("p2", "m2")):
            self.assemble(f"chimera: assembly/1\nbase: p0\nparents: [{{path: {parent}, lambda: 1}}]\n"
                          "rules: [{tensors: routed_experts, layers: 0}]\n"
                          f"output: {{module: {module}}}\n", out=module)
        # Beside the checkpoint a module stands for it, with these experts in place.
        found = self.assemble("chimera: assembly/1\nbase: p0\n"
                              "parents: [{path: m1, lambda: 0.25}]\n", out="beside")
        rule = {"method": "linear", "lambda": [0.75, 0.25]}
        self.check(found, 2, lambda name: rule if "layers.0." in name and ".experts." in name else None)
        # Modules of one backbone alone.
        both = self.assemble("chimera: assembly/1\nbase: m1\n"
                             "parents: [{path: m2, lambda: 0.25}]\noutput: {module: both}\n", out="both")
        run("verify", self.dir / "both", "--backbone", self.dir / "p0")
        m1, m2 = read_tensors(self.dir / "m1"), read_tensors(self.dir / "m2")
        self.assertEqual(set(both), set(m1))
        for name, (kind, _, blob) in both.items():
            self.assertEqual(blob, expected([m1[name], m2[name]], rule, name, kind, 0), name)

    # --- refusals ----------------------------------------------------------------------------------------

    def refused(self, text: str, *parts: str) -> None:
        done = run("assemble", self.recipe(text), "--out", self.dir / "out", ok=False)
        self.assertNotEqual(done.returncode, 0)
        for part in parts:
            self.assertIn(part, done.stderr)
        self.assertEqual([p.name for p in self.dir.iterdir() if p.name.startswith("out")], [])

    def test_parents_that_do_not_fit_are_named(self) -> None:
        self.parents()
        tensors = read_tensors(self.dir / "p1")
        names = [n for n in tensors if ".experts." in n]
        raw = {n: (t[0], np.frombuffer(t[2], np.uint8), t[1]) for n, t in tensors.items()}
        missing = raw.pop(names[0])
        raw["model.extra.weight"] = missing
        dtype, blob, shape = raw[names[1]]
        raw[names[1]] = (dtype, blob, shape[::-1])
        write(self.dir / "p1" / "model.safetensors", raw)
        self.refused("chimera: assembly/1\nbase: p0\nparents: [{path: p1, lambda: 0.5}]\n",
                     "lacks tensor", names[0], names[1], "has shape", "model.extra.weight")

    def test_nan_is_named_and_nothing_is_left(self) -> None:
        self.parents(dtype="F32")
        tensors = read_tensors(self.dir / "p1")
        raw = {n: (t[0], np.frombuffer(t[2], np.uint8).copy(), t[1]) for n, t in tensors.items()}
        bad = [n for n in raw if ".experts." in n][:2]
        for name in bad:
            raw[name][1][:4] = np.frombuffer(np.float32("nan").tobytes(), np.uint8)
        write(self.dir / "p1" / "model.safetensors", raw)
        self.refused("chimera: assembly/1\nbase: p0\nparents: [{path: p1, lambda: 0.5}]\n",
                     "NaN", *bad)

    def problems(self, text: str) -> list:
        """The lines in which a recipe is refused, without its name and the hint."""
        path = self.recipe(text)
        done = run("assemble", path, "--out", self.dir / "out", ok=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse((self.dir / "out").exists())
        said = done.stderr.removeprefix("chimera: ").rstrip("\n")
        return [line.removeprefix(f"{path}:") for line in said.split(". docs/")[0].split("\n")]

    def test_every_problem_of_a_recipe_at_once(self) -> None:
        found = self.problems("""chimera: assembly/1
base: p0
parents:
  - {path: p0, lambd: 0.5}
  - {path: p1, lambda: lots}
  - {path: ./p1, lambda: 0}
  - {lambda: 0.2}
rules:
  - {tensor: all}
  - {method: tis, layers: 5-3, density: 0}
  - {lambda: {p1: 2}}
  - {lambda: {p7: 0.2}, delta: "1"}
seed: 1.5
output: {dtype: bf17, module: Base}
""")
        self.assertEqual(found, [
            "4:16: parents[0].lambd: unknown key (did you mean lambda?)",
            "5:24: parents[1].lambda: found lots (expected a number of at least -1000 and at most 1000)",
            "6:12: parents[2].path: found ./p1 (expected every parent once)",
            "7:5: parents[3].path: missing (expected a path)",
            "9:6: rules[0].tensor: unknown key (did you mean tensors?)",
            "10:14: rules[1].method: found tis (expected linear, task_arithmetic, ties, dare_linear, "
            "dare_ties or slerp)",
            "10:27: rules[1].layers: found 5-3 (expected numbers from 0 to 65535, such as 3-60 or 1,5-7)",
            "10:41: rules[1].density: found 0 (expected a number of at least 1e-09 and at most 1)",
            "11:14: rules[2].lambda: found [-1, 2, 0, 0] (expected none below 0: method linear; "
            "task_arithmetic takes any)",
            "12:15: rules[3].lambda.p7: unknown key (did you mean p0?)",
            '12:32: rules[3].delta: found "1" (expected a number of at least 0 and at most 1000000)',
            "13:7: seed: found 1.5 (expected an integer from 0 to 9007199254740992)",
            "14:17: output.dtype: found bf17 (expected f32, f16 or bf16)",
            "14:31: output.module: found Base (expected 1 to 63 of a-z, 0-9, _ and -, first a letter or "
            "digit; not backbone or base)"])

    def test_what_a_recipe_cannot_do_without_is_named(self) -> None:
        self.assertEqual(self.problems("chimera: assembly/2\nrules: []\n"), [
            "1:1: base: missing (expected the path of a parent)",
            "1:1: parents: missing (expected a list of 1 to 64 parents)",
            "1:10: chimera: found assembly/2 (expected assembly/1)",
            "2:8: rules: found an empty list (expected a list of at least one rule, or no such key)"])
        self.assertEqual(self.problems("chimera: assembly/1\nbase: p0\nparents: [{path: p1}, "
                                       "{path: p2, lambda: 0.5}]\n"),
                         ['3:10: parents: found no lambda of "p1" (expected one of every parent but the '
                          'base, or of none)'])

    def test_an_interrupted_run_goes_on(self) -> None:
        self.parents()
        text = "chimera: assembly/1\nbase: p0\nparents: [{path: p1, lambda: 0.5}]\n"
        whole = self.assemble(text)
        # What a killed run leaves: the directory, its key and an unfinished file.
        partial = self.dir / "again.partial"
        partial.mkdir()
        (partial / ".assembly-key").write_text("another")
        done = run("assemble", self.recipe(text), "--out", self.dir / "again", ok=False)
        self.assertIn("left by a run", done.stderr)
        shutil.rmtree(partial)
        self.assertEqual(self.assemble(text, out="again"), whole)

    # --- mergekit ------------------------------------------------------------------------------------------

    def test_mergekit_gradients_and_filters(self) -> None:
        self.parents(seed=2)
        config = json.loads((self.dir / "p0" / "config.json").read_text())
        layers = config["num_hidden_layers"]
        found = self.assemble(f"""
merge_method: slerp
base_model: p0
slices:
  - sources:
      - {{model: p0, layer_range: [0, {layers}]}}
      - {{model: p1, layer_range: [0, {layers}]}}
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
""")

        def rule_of(name: str):
            layer = re.search(r"layers\.(\d+)\.", name)
            at = int(layer[1]) / max(1, layers - 1) if layer else float("embed" not in name)
            grid = np.linspace(0, 1, 5)
            t = 0.5
            if "self_attn" in name:
                t = np.interp(at, grid, [0, 0.5, 0.3, 0.7, 1])
            elif "mlp" in name:
                t = np.interp(at, grid, [1, 0.5, 0.7, 0.3, 0])
            return {"method": "slerp", "lambda": [1 - t, t]}

        self.check(found, 2, rule_of)

    def test_mergekit_methods(self) -> None:
        self.parents(count=3)
        for method, normal in (("linear", True), ("task_arithmetic", False), ("ties", True),
                               ("dare_linear", False), ("dare_ties", False)):
            with self.subTest(method):
                found = self.assemble(f"""
merge_method: {method}
base_model: p0
models:
  - {{model: p0, parameters: {{weight: {0.5 if method == "linear" else 0}}}}}
  - {{model: p1, parameters: {{weight: 0.6, density: 0.5}}}}
  - {{model: p2, parameters: {{weight: 0.3, density: 0.7}}}}
dtype: float32
""", out="mk-" + method)
                lam = [0.5 if method == "linear" else 0, 0.6, 0.3]
                if method == "linear":
                    lam = [l / sum(lam) for l in lam]
                rule = {"method": method, "lambda": lam, "density": [1, 0.5, 0.7],
                        "consensus": "mean" if normal else "sum"}
                self.check(found, 3, lambda name: rule, "F32")

    def test_mergekit_names_what_it_does_not_read(self) -> None:
        self.assertEqual(self.problems("""merge_method: breadcrumbs
tokenizer: {source: union}
tokenizer_source: union
base_modl: p0
slices:
  - sources:
      - {model: p0, layer_range: [0, 2]}
      - {modle: p1, layer_range: [2, 2]}
    parameters: {t: [{filter: mlp, valu: 1}, 0.5], normalize: maybe}
  - sources: []
parameters: {weight: heavy, rescale: 0}
dtype: int8
"""), [
            "1:15: merge_method: found breadcrumbs (expected linear, task_arithmetic, ties, dare_linear, "
            "dare_ties or slerp)",
            "2:12: tokenizer: found a map (expected no such key: it is not supported)",
            "3:19: tokenizer_source: found union (expected base)",
            "4:1: base_modl: unknown key (did you mean base_model?)",
            "7:7: layer_range: not [0, …] in every source (expected it: layers that move are not "
            "supported)",
            "8:9: slices[0].sources[1].model: missing (expected the path of a parent)",
            "8:10: slices[0].sources[1].modle: unknown key (did you mean model?)",
            "8:34: slices[0].sources[1].layer_range: found a list (expected two numbers up to 65536, "
            "[first, end))",
            "9:21: slices[0].parameters.t: found a list (expected either numbers or maps with filter and "
            "value)",
            "9:22: slices[0].parameters.t.value: missing (expected a number or a gradient)",
            "9:36: slices[0].parameters.t.valu: unknown key (did you mean value?)",
            "9:63: slices[0].parameters.normalize: found maybe (expected true or false)",
            "10:14: slices[1].sources: found an empty list (expected a list of models)",
            "11:22: parameters.weight: found heavy (expected a number of at least -1000000 and at most "
            "1000000)",
            "11:38: parameters.rescale: found 0 (expected true)",
            "12:8: dtype: found int8 (expected f32, f16 or bf16)"])
        self.assertEqual(self.problems("merge_method: ties\nmodels: [{model: p1}]\nslices: []\n"), [
            "1:1: slices: found beside models (expected one of the two)",
            "3:9: slices: found an empty list (expected a list of slices)"])
        self.assertEqual(self.problems("merge_method: ties\nmodels: [{model: p1}]\n"),
                         ["2:9: base_model: missing (expected the path of a parent: method ties)"])
        self.assertEqual(self.problems("merge_method: slerp\n"),
                         ["1:1: models: missing (expected models or slices)"])

    # --- diff --------------------------------------------------------------------------------------------

    def test_diff_says_where_parents_differ(self) -> None:
        self.parents()
        plot = self.dir / "plot.svg"
        done = run("--json", "diff", self.dir / "p0", self.dir / "p1", "--plot", plot)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        a, b = read_tensors(self.dir / "p0"), read_tensors(self.dir / "p1")
        for row in rows:
            if row["set"] != "routed_experts":
                continue
            names = [n for n in a if f"layers.{row['layer']}.mlp.experts." in n]
            x, y = (np.concatenate([to_f64(*t[n]).ravel() for n in names]) for t in (a, b))
            self.assertEqual(row["tensors"], len(names))
            np.testing.assert_allclose(row["rms"], np.sqrt(((x - y) ** 2).mean()), rtol=1e-9)
            np.testing.assert_allclose(row["changed"], (x != y).mean())
            np.testing.assert_allclose(
                row["cosine"], x @ y / np.linalg.norm(x) / np.linalg.norm(y), rtol=1e-9)
            name = row["largest_tensor"]
            values = np.linalg.svd(to_f64(*a[name]) - to_f64(*b[name]), compute_uv=False)
            np.testing.assert_allclose(row["spectrum"][:4],
                                       (values / np.linalg.norm(values))[:4], rtol=1e-6)
        self.assertIn("routed_experts", {row["set"] for row in rows})
        self.assertTrue(plot.read_text().startswith("<svg"))
        self.assertIn("layer,set", run("diff", self.dir / "p0", self.dir / "p1", "--csv").stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
