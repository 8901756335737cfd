"""Design invariants 1, 2, 4, 6 and 7 through the wire, on every golden family in the project."""
import json
import shutil
import struct
import tempfile
import time
import unittest
from pathlib import Path

import yaml
from harness import (DEMO, GOLDEN, MEASURES_MEMORY, Daemon, Reader, chimera_client, endless, flat, run,
                     split)

PROMPT = [17, 250, 3, 99, 120, 121, 7, 45, 201, 8, 8, 300, 12]

# Checkpoint, slots of the modules (expert counts differ). Nothing says top_k: the modules do.
CASES = [
    ("flex_olmo_f32", {"a": "4", "b": "5-6"}),
    ("flex_olmo_f32", {"a": "1", "b": "3,5"}),  # from the middle
    ("olmoe_bf16", {"a": "10-12", "b": "13-15"}),
    ("mixtral_bf16", {"a": "6", "b": "7"}),
    ("flex_olmo_f32", {"a": "0-2", "b": "3-5"}),  # fewer base experts than top_k are left
    ("olmoe_bf16", {"a": "0-7", "b": "8-14"}),
    ("mixtral_bf16", {"a": "0-3", "b": "4-6"}),
]


def logits(client, **options) -> list[float]:
    return flat(client.score(tokens=PROMPT, logits=True, **options).logits)


class Compositions(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="chimera-compose-"))

    def tearDown(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def test_split_and_composed_is_bitwise_the_whole(self) -> None:  # invariant 1
        for i, (name, slots) in enumerate(CASES):
            with self.subTest(checkpoint=name, slots=slots):
                with Daemon(GOLDEN / name) as daemon, daemon.client() as client:
                    whole = logits(client)
                parts = split(GOLDEN / name, self.scratch / str(i), **slots)
                modules = [{"path": str(parts / "modules" / m)} for m in slots]
                with Daemon(parts / "backbone", modules=modules) as daemon, \
                        daemon.client() as client:
                    self.assertEqual(logits(client), whole)
                    self.assertEqual(client.info()["notes"], [])
                    # A different composition must differ, or the comparison above says nothing.
                    self.assertNotEqual(logits(client, modules={"exclude": ["a"]}), whole)

    def test_another_top_k_than_the_modules_state_is_told(self) -> None:
        parts = split(GOLDEN / "olmoe_bf16", self.scratch / "told", a="0-7", b="8-14")
        module = parts / "modules" / "a"
        with Daemon(parts / "backbone") as daemon, daemon.client() as client:
            alone = logits(client)
            client.load(module)
            self.assertEqual(client.info()["top_k"], 6)
            self.assertEqual(logits(client, modules={"exclude": ["a"]}), alone)
            client.unload("a")
            self.assertEqual(logits(client), alone)
        with Daemon(parts / "backbone", top_k=2) as daemon, daemon.client() as client:
            note = "module a was fitted for top_k 6, but the composition says 2"
            self.assertIn(note, daemon.cli("load", str(module)).stdout)
            self.assertEqual(client.info()["notes"], [note])
            self.assertIn(note, daemon.cli("info").stdout)
            self.assertIn(note, daemon.log_text())
            wish = self.scratch / "wish.yaml"
            wish.write_text(json.dumps({"top_k": 3, "modules": [{"path": str(module)}]}))
            self.assertIn(note.replace("2", "3"), daemon.cli("plan", str(wish)).stdout)
            deployment = json.loads(daemon.config.read_text())
            deployment["composition"]["modules"] = [{"path": str(module)}]
            daemon.config.write_text(json.dumps(deployment))
            checked = run("chimerad", "--config", daemon.config, "--check").stdout
            self.assertIn(note, checked)
            self.assertRegex(checked, r"(?m)^top_k +2 \(composition.top_k\)$")

    def test_masked_is_bitwise_never_loaded(self) -> None:  # invariant 2
        for attach in ("append", "replace"):
            with self.subTest(attach=attach):
                out = self.scratch / attach
                parts = split(GOLDEN / "flex_olmo_f32", out, a="4", b="5")
                module_b = parts / "modules" / "b"
                if attach == "replace":
                    other = split(GOLDEN / "flex_olmo_f32", out / "other", x="6")
                    module_b = self.as_replacement(other / "modules" / "x", parts, slot=2)
                a = {"path": str(parts / "modules" / "a")}
                with Daemon(parts / "backbone", modules=[a]) as daemon, daemon.client() as client:
                    without = logits(client)
                    loaded = client.load(module_b)
                    name = loaded["changes"][0]["module"]
                    self.assertNotEqual(logits(client), without)
                    self.assertEqual(logits(client, modules={"exclude": [name]}), without)
                    self.assertEqual(logits(client, modules={"only": ["a"]}), without)
                    client.unload(name)
                    self.assertEqual(logits(client), without)

    def as_replacement(self, module: Path, parts: Path, slot: int) -> Path:
        """An appended one-expert module rewritten to override base slot `slot`."""
        target = self.scratch / "replacement"
        shutil.copytree(module, target)
        weights = target / "weights.safetensors"
        raw = weights.read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        header = json.loads(raw[8:8 + length])
        renamed = {k.replace(".experts.0.", f".experts.{slot}."): v for k, v in header.items()}
        text = json.dumps(renamed).encode()
        text += b" " * (-len(text) % 8)
        weights.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length:])
        manifest = yaml.safe_load((target / "module.yaml").read_text())
        manifest["attach"] = "replace"
        del manifest["provenance"]
        (target / "module.yaml").write_text(yaml.safe_dump(manifest))
        run("chimera", "module", "seal", target, "--backbone", parts / "backbone")
        return target

    def test_revoked_is_gone_for_running_streams(self) -> None:  # invariant 4
        # The demo, not a golden: its tokens take long enough for a reader in Python to keep up.
        backbone = self.scratch / "demo"
        shutil.copytree(DEMO / "backbone", backbone)
        endless(backbone)
        modules = [{"path": str(DEMO / name)} for name in ("legal", "bio")]
        serve = {"max_context": 20_000, "max_sequences": 2}

        def counts(control) -> list:
            return [layer["modules"]["bio"]["experts"] for layer in control.routing()["layers"]]

        with Daemon(backbone, modules=modules, serve=serve) as daemon, \
                daemon.client() as client, daemon.client() as control:
            reader = Reader(client, tokens=PROMPT, max_tokens=19_000, temperature=0, ignore_eos=True)
            reader.more(20)
            epoch = control.revoke("bio")["epoch"]
            time.sleep(0.3)  # the counters are copied for readers every 100 ms at most
            before = counts(control)
            reader.more(500)
            reader.stop()
            after = counts(control)  # copied when a request ends, too
        self.assertIsNone(reader.problem)
        self.assertEqual(reader.done["usage"]["completion_tokens"], reader.count)
        self.assertEqual(set(reader.epochs[reader.epochs.index(epoch):]), {epoch})
        self.assertEqual(before, after, "an expert of the revoked module was still counted")
        # It was used before: its owner still sees how much.
        self.assertGreater(reader.done["provenance"]["modules"]["bio"]["share"], 0)

    def test_failed_change_leaves_no_trace(self) -> None:  # invariant 6
        parts = split(GOLDEN / "flex_olmo_f32", self.scratch / "failed", a="4", b="5")
        broken = self.scratch / "broken"
        shutil.copytree(parts / "modules" / "b", broken)
        data = bytearray((broken / "weights.safetensors").read_bytes())
        data[-1] ^= 1
        (broken / "weights.safetensors").write_bytes(data)
        with Daemon(parts / "backbone", modules=[{"path": str(parts / "modules" / "a")}],
                    one_heap=True) as daemon, daemon.client() as client:
            def state():
                return logits(client), client.health()["epoch"], client.info()["composition"]

            def fail(times: int) -> None:
                for _ in range(times):
                    self.assertRaises(chimera_client.DataCorrupt, client.load, broken)

            untouched = state()
            fail(20)  # allocator warm-up
            allowed = {"fds": 0, **({"rss_kib": 1024} if MEASURES_MEMORY else {})}
            grown = daemon.growth(lambda: fail(50), allowed)
            for key, bound in allowed.items():
                self.assertLessEqual(grown[key], bound, key)
            self.assertEqual(state(), untouched)

    def test_prefix_cache_never_crosses_masks(self) -> None:  # invariant 7
        parts = split(GOLDEN / "flex_olmo_f32", self.scratch / "prefix", a="4", b="5-6")
        modules = [{"path": str(parts / "modules" / m)} for m in "ab"]
        prompt = [(11 * i) % 290 + 1 for i in range(70)]  # several full cache blocks

        def greedy(client, **options):
            done = client.complete(tokens=prompt, max_tokens=12, temperature=0, ignore_eos=True,
                                   **options)
            return done["tokens"], done["usage"]["cached_tokens"]

        masked = {"modules": {"exclude": ["b"]}}
        with Daemon(parts / "backbone", modules=modules, serve={"prefix_cache": False}) as daemon, \
                daemon.client() as client:
            plain, excluded = greedy(client)[0], greedy(client, **masked)[0]
        self.assertNotEqual(plain, excluded)
        with Daemon(parts / "backbone", modules=modules) as daemon, daemon.client() as client:
            self.assertEqual(greedy(client), (plain, 0))
            self.assertEqual(greedy(client, **masked), (excluded, 0))
            again, cached = greedy(client)
            self.assertEqual(again, plain)
            self.assertGreater(cached, 0)


if __name__ == "__main__":
    unittest.main()
