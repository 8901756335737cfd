"""Modules of kind assembly: what is loaded is what `module assemble` writes, bit for bit, and `blend`
makes it anew with other coefficients while streams go on."""
from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import tempfile
import time
import unittest
from typing import Any

from harness import DEMO, GOLDEN, Daemon, chimera_client, flat, run, wait_for
from assembly_modules import assembly, module, versions

TOKENS = [(7 * i) % 90 + 1 for i in range(40)]  # of the smallest vocabulary here
ALL_TENSORS = "rules: [{tensors: all}]\n"


def logits(client: chimera_client.Client, **modules: Any) -> Any:
    return flat(client.score(tokens=TOKENS, logits=True, **modules).logits)


class Blend(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="chimera-blend-"))
        cls.parts = versions(GOLDEN / "flex_olmo_f32", cls.scratch)
        cls.backbone = cls.parts / "backbone"
        cls.live = assembly(cls.parts / "live", cls.backbone, {"../legal-a": None, "../legal-b": 0.25},
                            rules=ALL_TENSORS)

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.scratch, ignore_errors=True)

    def assembled(self, b: float, rules: str = ALL_TENSORS) -> pathlib.Path:
        """What `module assemble` writes of the same parents."""
        out = self.scratch / f"assembled-{b}-{abs(hash(rules)) % 1000}"
        if not out.exists():
            recipe = self.parts / "recipe.yaml"
            recipe.write_text("chimera: assembly/1\nbase: legal-a\nparents:\n"
                              f"  - {{path: legal-b, lambda: {b}}}\n{rules}output: {{module: legal}}\n")
            run("chimera", "module", "assemble", str(recipe), "--out", str(out))
        return out

    def refused(self, code: str, *expected: str) -> Any:
        """A context in which a call is refused with all of `expected` in its message."""
        test = self

        class Context:
            def __enter__(self) -> None:
                pass

            def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
                test.assertIsInstance(error, chimera_client.ChimeraError)
                test.assertEqual(error.code, code, error)
                for text in expected:
                    test.assertIn(text, str(error))
                return True

        return Context()

    def test_is_what_assemble_writes_bit_for_bit(self) -> None:
        for rules in (ALL_TENSORS, "",
                      "rules: [{tensors: '*.up_proj.*', method: ties, density: 0.5}, {tensors: all, delta: 0.01}]\n",
                      "rules: [{tensors: all, method: slerp}]\n"):
            with self.subTest(rules), Daemon(self.backbone) as daemon, daemon.client() as client:
                live = assembly(self.parts / "one", self.backbone,
                                {"../legal-a": None, "../legal-b": 0.25}, rules=rules)
                client.load(live)
                found = logits(client)
                told = module(client)
                self.assertEqual((told["kind"], told["lambda"]),
                                 ("assembly", {"legal-a": 0.75, "legal-b": 0.25}))
                client.load(self.assembled(0.25, rules))
                self.assertEqual(logits(client), found)
                self.assertEqual(module(client)["experts"], told["experts"])
                client.load(live)
                client.blend("legal", {"legal-b": 0.7})
                found = logits(client)
                client.load(self.assembled(0.7, rules))
                self.assertEqual(logits(client), found)
                shutil.rmtree(live)

    def test_the_ends_are_the_parents(self) -> None:
        with Daemon(self.backbone) as daemon, daemon.client() as client:
            ends = {}
            for end in "ab":
                client.load(self.parts / f"legal-{end}")
                ends[end] = logits(client)
            self.assertNotEqual(ends["a"], ends["b"])
            client.load(self.live)
            self.assertNotIn(logits(client), list(ends.values()))
            report = client.blend("legal", {"legal-b": 0})
            self.assertEqual([(c["action"], c["module"]) for c in report["changes"]], [("blend", "legal")])
            self.assertEqual(logits(client), ends["a"])
            client.blend("legal", {"legal-a": 0})  # of two, the other one has the rest
            self.assertEqual(logits(client), ends["b"])
            self.assertEqual(module(client)["lambda"], {"legal-a": 0, "legal-b": 1})
            again = client.blend("legal", {"legal-b": 1})
            self.assertEqual(again["changes"], [])  # and so no epoch
            client.blend("legal", {"legal-b": 0.25})  # as its recipe says
            before = client.epochs()["composition"]
            client.load(self.live)
            self.assertEqual(client.epochs()["composition"], before)

    def test_streams_go_on_as_they_began(self) -> None:
        with Daemon(self.backbone, modules=[{"path": str(self.live)}]) as daemon, \
                daemon.client() as client, daemon.client() as control:
            request = {"tokens": TOKENS, "temperature": 0, "ignore_eos": True, "max_tokens": 400}
            alone = [t.token for t in client.generate(**request)]
            stream = client.generate(**request)
            tokens = [next(stream).token for _ in range(3)]
            epoch = control.blend("legal", {"legal-b": 0.9})["epoch"]
            rest = list(stream)
            self.assertEqual(tokens + [t.token for t in rest], alone)
            self.assertLess(max(t.epoch for t in rest), epoch)
            after = [t for t in client.generate(**request)]
            self.assertEqual({t.epoch for t in after}, {epoch})
            self.assertNotEqual([t.token for t in after], alone)

    def test_memory_returns_once_old_epochs_have_drained(self) -> None:
        """Of a module of the deployment as of one that was loaded: the account is what it was, one module."""
        with Daemon(self.backbone, modules=[{"path": str(self.live)}]) as daemon, \
                daemon.client() as client, daemon.client() as control:
            used = lambda: control.stats()["memory"]["used_bytes"]
            before = used()
            for loaded in (False, True):
                if loaded:
                    control.unload("legal")
                    control.load(self.live)
                for i in range(1, 4):
                    stream = client.generate(tokens=TOKENS, temperature=0, ignore_eos=True, max_tokens=100)
                    next(stream)
                    control.blend("legal", {"legal-b": i / 5})
                    self.assertEqual(len(list(stream)), 99)
                wait_for(lambda: used() == before, f"the memory of before, {before} and not {used()} bytes")

    def test_state_and_rollback_keep_it(self) -> None:
        with Daemon(self.backbone, modules=[{"path": str(self.live)}]) as daemon:
            with daemon.client() as client:
                first = logits(client)
                epoch = client.epochs()["epoch"]
                client.bias("legal", 0.5)
                client.blend("legal", {"legal-b": 0.125})
                client.disable("legal")
                client.enable("legal")  # what does not concern it leaves it
                blended = logits(client)
                client.blend("legal", {"legal-b": 1 / 3})
                third = logits(client)
            daemon.kill()
            daemon.start()
            with daemon.client() as client:
                self.assertEqual(module(client)["lambda"], {"legal-a": 1 - 1 / 3, "legal-b": 1 / 3})
                self.assertEqual(module(client)["bias"], 0.5)
                self.assertEqual(logits(client), third)
                client.rollback()
                self.assertEqual(module(client)["lambda"]["legal-b"], 0.125)
                self.assertEqual(logits(client), blended)
                client.rollback(epoch)
                self.assertEqual(logits(client), first)
                records = client.epochs()["history"]
                self.assertEqual([r["modules"][0].get("lambda") for r in records][-1], None)
                self.assertIn({"legal-a": 0.875, "legal-b": 0.125},
                              [r["modules"][0].get("lambda") for r in records])

    def test_a_deployment_may_say_it(self) -> None:
        wish = {"path": str(self.live), "lambda": {"legal-b": 0.5}}
        with Daemon(self.backbone, modules=[wish]) as daemon, daemon.client() as client:
            self.assertEqual(module(client)["lambda"], {"legal-a": 0.5, "legal-b": 0.5})
            half = logits(client)
            plan = client.plan({"modules": [{"path": str(self.live)}]})
            self.assertTrue(plan["accepted"], plan)
            self.assertEqual([c["action"] for c in plan["changes"]], ["blend"])
            client.apply({"modules": [{"path": str(self.live)}]})
            self.assertNotEqual(logits(client), half)
            self.assertEqual(client.plan({"modules": [wish]})["composition"],
                             client.apply({"modules": [wish]})["composition"])
            self.assertEqual(logits(client), half)
            bad = client.plan({"modules": [{**wish, "lambda": {"legal-c": 1}}]})
            self.assertIn("legal-c", bad["refusals"][0]["message"])
            self.assertEqual(run("chimerad", "--config", str(daemon.config), "--check").returncode, 0)

    def test_plan_says_its_memory(self) -> None:
        wish = {"modules": [{"path": str(self.live)}]}
        with Daemon(self.backbone) as daemon, daemon.client() as client:
            plan = client.plan(wish)
            self.assertTrue(plan["accepted"], plan)
            probed = client.plan(wish, probe=True)
            self.assertEqual(plan["composition"], probed["composition"])
            client.load(self.live)
            resident = module(client)["resident_bytes"]
            self.assertEqual((plan["memory_bytes"], probed["memory_bytes"]), (resident, resident))

    def test_errors_name_parent_coefficient_and_what_is_expected(self) -> None:
        with Daemon(self.backbone, modules=[{"path": str(self.live)}]) as daemon, \
                daemon.client() as client:
            before = client.epochs()["epoch"], logits(client)
            for parents, code, expected in (
                    ({"legal-c": 0.5}, "not_found", ("module legal", "legal-c", "legal-a, legal-b")),
                    ({"legal-b": 1.5}, "invalid_argument", ("legal-a", "-0.5", "expected 0 to 1", "linear")),
                    ({"legal-b": -0.25}, "invalid_argument", ("legal-b", "-0.25", "expected 0 to 1")),
                    ({"legal-a": 0.5, "legal-b": 0.4}, "invalid_argument",
                     ("legal-a 0.5, legal-b 0.4", "0.9", "expected 1")),
                    ({}, "invalid_argument", ("lambda",)), ({"legal-b": 1e9}, "invalid_argument", ("lambda",))):
                with self.subTest(parents), self.refused(code, *expected):
                    client.blend("legal", parents)
            with self.refused("not_found", "finance", "legal"):
                client.blend("finance", {"legal-b": 0.5})
            self.assertEqual((client.epochs()["epoch"], logits(client)), before)
            ran = daemon.cli("blend", "legal", "legal-b=2", check=False)
            self.assertEqual(ran.returncode, 1)
            self.assertIn("parent legal-a: found -1 (expected 0 to 1", ran.stderr)
            self.assertEqual(daemon.cli("blend", "legal", "legal-b", check=False).returncode, 2)
            ran = daemon.cli("blend", "legal", "legal-b=0.375")
            self.assertIn("blend legal  as its recipe says -> legal-a 0.625, legal-b 0.375", ran.stdout)
            self.assertIn("legal: legal-a 0.625, legal-b 0.375", daemon.cli("modules").stdout)
            client.load(self.parts / "legal-a")
            with self.refused("failed_precondition", "legal", "kind weights", "expected assembly"):
                client.blend("legal", {"legal-b": 0.5})

    def test_parents_that_changed_are_not_used(self) -> None:
        work = versions(GOLDEN / "flex_olmo_f32", self.scratch / "changed")
        live = assembly(work / "live", work / "backbone", {"../legal-a": None, "../legal-b": 0.5})
        weights = work / "legal-b" / "weights.safetensors"
        whole = weights.read_bytes()
        with Daemon(work / "backbone", modules=[{"path": str(live)}]) as daemon, daemon.client() as client:
            before = logits(client)
            with weights.open("r+b") as file:  # in place, the same length
                file.seek(len(whole) - 1)
                file.write(bytes([whole[-1] ^ 1]))
            with self.refused("failed_precondition", "weights.safetensors", "changed"):
                client.blend("legal", {"legal-b": 0.75})
            with self.refused("data_corrupt", "legal-b", "expected sha256:"):
                client.load(live)
            self.assertEqual(logits(client), before)
            replacement = work / "legal-b" / "new"
            replacement.write_bytes(whole)
            os.replace(replacement, weights)
            report = client.load(live)  # the parent is back
            self.assertEqual([c["action"] for c in report["changes"]], ["restart"])
            client.blend("legal", {"legal-b": 0.75})
            self.assertNotEqual(logits(client), before)

    def test_manifest_and_recipe_are_compared(self) -> None:
        live = assembly(self.parts / "odd", self.backbone, {"../legal-a": None, "../legal-b": 0.5})
        manifest = (live / "module.yaml").read_text()
        with Daemon(self.backbone) as daemon, daemon.client() as client:
            for old, new, code, expected in (
                    ("../legal-b\"", "../legal-c\"", "invalid_argument", ("legal-b", "legal-c")),
                    ("attach: append", "attach: replace", "failed_precondition", ("attach", "expected append")),
                    ("recipe.yaml\n    sha256: sha256:", "recipe.yaml\n    sha256: sha256:0", "invalid_argument",
                     ("sha256",)),
                    ("assembly:", "library:", "invalid_argument", ("assembly",))):
                with self.subTest(new):
                    text = manifest.replace(old, new)
                    if text == manifest:  # paths need no quotes
                        text = manifest.replace(old.replace('"', "\n"), new.replace('"', "\n"))
                    self.assertNotEqual(text, manifest)
                    (live / "module.yaml").write_text(text)
                    with self.refused(code, *expected):
                        client.load(live)
            (live / "module.yaml").write_text(manifest)
            recipe = (live / "recipe.yaml").read_text()
            (live / "recipe.yaml").write_text(recipe + "seed: 3\n")
            with self.refused("data_corrupt", "recipe.yaml", "expected sha256:"):
                client.load(live)
            self.assertEqual(client.modules(), [])
        shutil.rmtree(live)

    def test_experts_of_a_checkpoint(self) -> None:
        """Parents that are checkpoints: what differs replaces the backbone's experts."""
        work = self.scratch / "checkpoints"
        work.mkdir()
        for name in "ab":
            shutil.copytree(GOLDEN / "families" / "mixtral_yarn", work / name)
        change(work / "b")
        live = assembly(work / "live", work / "a", {"../a": None, "../b": 0.5}, attach="replace")
        recipe = (live / "recipe.yaml").read_text() + "output: {module: legal}\n"
        (work / "live" / "offline.yaml").write_text(recipe)
        run("chimera", "module", "assemble", str(live / "offline.yaml"), "--out", str(work / "out"))
        with Daemon(work / "a") as daemon, daemon.client() as client:
            bare = logits(client)
            client.load(live)
            found = logits(client)
            self.assertNotEqual(found, bare)
            client.blend("legal", {"b": 0})
            self.assertEqual((logits(client), module(client)["experts"]), (bare, 0))
            client.blend("legal", {"b": 0.5})
            self.assertEqual(logits(client), found)
            client.load(work / "out")
            self.assertEqual(logits(client), found)

    def test_offline_programs_know_it(self) -> None:
        told = json.loads(run("chimera", "--json", "module", "inspect", str(self.live)).stdout)
        self.assertEqual((told["kind"], told["parents"]),
                         ("assembly", {"../legal-a": 0.75, "../legal-b": 0.25}))
        run("chimera", "module", "verify", str(self.live), "--backbone", str(self.backbone))
        for command in (["graft", str(self.backbone), str(self.live), "--out",
                         str(self.scratch / "grafted")],):
            ran = run("chimera", "module", *command, check=False)
            self.assertNotEqual(ran.returncode, 0)
            self.assertIn("found kind assembly (expected weights)", ran.stderr)


class TwoVersions(unittest.TestCase):
    """The demo's `legal` and what it was before, blended as docs/assembly.md shows: which of them answers turns
    at one place between them, and the sweep finds it."""
    PROMPTS = ("In the event of a default,", "The term of this Agreement", "Section 1.", "No person shall")

    def test_a_sweep_finds_where_an_answer_turns_and_draws_it(self) -> None:
        work = pathlib.Path(tempfile.mkdtemp(prefix="chimera-versions-"))
        self.addCleanup(shutil.rmtree, work, ignore_errors=True)
        for name in ("legal", "versions"):
            shutil.copytree(DEMO / name, work / name)
        mix = work / "versions" / "legal-mix"
        run("chimera", "module", "seal", str(mix), "--backbone", str(DEMO / "backbone"))
        text, plot = work / "text.txt", work / "blend.svg"
        text.write_text((DEMO / "train" / "excerpts" / "legal.txt").read_text()[:500])
        with Daemon(DEMO / "backbone", precision="bf16", threads=2) as daemon, daemon.client() as client:
            client.load(mix)
            answer = lambda: [client.complete(prompt, max_tokens=8, temperature=0)["text"] for prompt in self.PROMPTS]
            now = answer()
            began = time.monotonic()
            client.blend("legal", {"legal-1.0.0": 1.0})
            print(f"a blend of the demo: {1e3 * (time.monotonic() - began):.0f} ms from call to answer")
            before = answer()
            client.blend("legal", {"legal-1.0.0": 0.0})
            self.assertEqual(answer(), now)
            # A word that one of them says and the other does not.
            turns = [(prompt, word) for prompt, a, b in zip(self.PROMPTS, now, before)
                     for word in re.findall("[A-Za-z]{4,}", a) if word not in b]
            self.assertTrue(turns, (now, before))
            prompt, word = turns[0]
            ran = daemon.cli("--json", "blend", "legal", "--sweep", "legal-1.0.0=0:1:0.5", "--score", str(text),
                             "--ask", prompt, "--trait", word, "--max-tokens", "8", "--plot", str(plot), timeout=600)
            lines = [json.loads(line) for line in ran.stdout.splitlines()]
            turn = next(line for line in lines if line.get("event") == "threshold" and line["of"] == "trait")
            self.assertLess(turn["high"] - turn["low"], 0.0011)
            self.assertTrue(0 <= turn["low"] < turn["high"] <= 1, turn)
            self.assertIn("<svg", plot.read_text())
            for at, says in ((turn["low"], True), (turn["high"], False)):
                client.blend("legal", {"legal-1.0.0": at})
                self.assertEqual(word in client.complete(prompt, max_tokens=8, temperature=0)["text"], says, turn)


def change(checkpoint: pathlib.Path) -> None:
    """Every number of the routed experts becomes another one of its size."""
    path = checkpoint / "model.safetensors"
    blob = bytearray(path.read_bytes())
    length = int.from_bytes(blob[:8], "little")
    for name, entry in json.loads(blob[8:8 + length]).items():
        if ".experts." not in name:
            continue
        begin, end = (8 + length + at for at in entry["data_offsets"])
        # The highest bit of the mantissa.
        size, byte, bit = {"F32": (4, 2, 0x40), "F16": (2, 1, 0x02), "BF16": (2, 0, 0x40)}[entry["dtype"]]
        for at in range(begin + byte, end, size):
            blob[at] ^= bit
    path.unlink()
    path.write_bytes(blob)


if __name__ == "__main__":
    unittest.main(verbosity=2)
