"""Adapters within `memory.adapters`: read when they are used, evicted when nobody uses them, with the bits
that they have when all of them stay in memory.
"""
from __future__ import annotations

import json
import pathlib
import tempfile
import unittest

from harness import ENDLESS, Daemon, Reader, chimera_client, endless, run, wait_for

try:
    import numpy as np
    from lora_adapters import ATTENTION, FEED_FORWARD, Adapter
    from test_lora import CONTEXT, drawn
    MISSING = None
except ImportError as error:
    MISSING = str(error)

KIB = 1024


@unittest.skipIf(MISSING, MISSING)
class AdapterMemory(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.scratch.cleanup)
        root = pathlib.Path(cls.scratch.name)
        cls.base = root / "base"
        drawn("qwen3_moe", cls.base, lambda c: not c["mlp_only_layers"])
        endless(cls.base)
        cls.adapters = root / "adapters"
        for i in range(24):
            cls.write(f"a{i}", i)
        with Daemon(cls.base, serve={"max_context": CONTEXT}, modules=cls.listed(["a0"])) as daemon, \
                daemon.client() as client:
            (module,) = client.modules()
            assert module["resident"] is True
            cls.size = module["resident_bytes"]

    @classmethod
    def write(cls, name: str, seed: int, targets: list[str] | None = None) -> pathlib.Path:
        return Adapter(cls.base, targets or ["q_proj", "down_proj"], seed=seed, rank=2).write(cls.adapters / name)

    @classmethod
    def listed(cls, names: list[str]) -> list[dict]:
        return [{"path": str(cls.adapters / name)} for name in names]

    def daemon(self, names: list[str], room: float | None, context: int = CONTEXT, **options) -> Daemon:
        """With room for that many of them; None: for all."""
        memory = {} if room is None else {"adapters": f"{int(room * self.size) // KIB + 1} KiB"}
        return Daemon(self.base, serve={"max_context": context}, modules=self.listed(names), memory=memory, **options)

    def ask(self, client, names: list[str], start: int = 1, length: int = 12, **modules) -> tuple:
        done = client.complete(tokens=[start, 2, 3], max_tokens=length, temperature=0, ignore_eos=True, logprobs=True,
                               modules={"adapters": names, **modules})
        return done["tokens"], done["logprobs"]

    def test_hundreds_within_a_budget_of_eight(self) -> None:
        names = [f"a{i}" for i in range(24)] + [f"b{i}" for i in range(488)]
        for i, name in enumerate(names[24:]):
            self.write(name, 1000 + i)
        rng = np.random.default_rng(7)
        wishes = [[]] + [[names[i] for i in rng.choice(len(names), size=rng.integers(1, 4), replace=False)]
                         for _ in range(60)] + [["a1"], ["a1", "b7"], ["b7", "a1"]]
        with self.daemon(names, None) as daemon, daemon.client() as client:
            self.assertNotIn("adapters", client.stats())
            expected = [self.ask(client, wish, i % 90) for i, wish in enumerate(wishes)]
        with self.daemon(names, 8) as daemon, daemon.client() as client:
            stats = client.stats()["adapters"]
            self.assertEqual((stats["registered"], stats["resident"]), (512, 8))
            for i, wish in enumerate(wishes):
                self.assertEqual(self.ask(client, wish, i % 90), expected[i], wish)
                stats = client.stats()["adapters"]
                self.assertLessEqual(stats["bytes"], stats["limit_bytes"])
            self.assertGreater(stats["evictions"], 60)
            # All at once, in turn for the memory.
            sent = [client.send("generate", tokens=[i % 90, 2, 3], max_tokens=12, temperature=0, ignore_eos=True,
                                logprobs=True, stream=False, modules={"adapters": wish})
                    for i, wish in enumerate(wishes)]
            for i, request in enumerate(sent):
                done = client.receive("generate", request).body
                self.assertEqual((done["tokens"], done["logprobs"]), expected[i], wishes[i])
                self.assertEqual(sorted(done["provenance"]["modules"]), sorted(wishes[i]))
            stats = client.stats()["adapters"]
            self.assertLessEqual(stats["bytes"], stats["limit_bytes"])
            self.assertEqual((stats["in_use"], stats["waiting"], stats["read_failures"]), (0, 0, 0))
            modules = client.modules()
            self.assertEqual(sum(m["resident"] for m in modules), stats["resident"])
            self.assertEqual(sum(m["resident_bytes"] for m in modules), stats["bytes"])
            parts = {part["use"]: part["bytes"] for part in client.stats()["memory"]["parts"]}
            self.assertEqual(parts["adapters"], stats["limit_bytes"])
            self.assertNotIn("module", parts)
            self.assertIn("not read", daemon.cli("modules").stdout)

    def test_what_streams_use_stays_and_goes_on(self) -> None:
        names = [f"a{i}" for i in range(24)]
        with self.daemon(names, 4, ENDLESS, log_level="debug") as daemon, daemon.client() as client, \
                daemon.client() as first, daemon.client() as second, daemon.client() as third:
            endless_request = {"tokens": [1, 2, 3], "max_tokens": ENDLESS - 10, "temperature": 0, "ignore_eos": True}
            streams = [Reader(own, **endless_request, modules={"adapters": wish})
                       for own, wish in ((first, ["a20"]), (second, ["a21", "a22"]), (third, []))]
            before = client.stats()["adapters"]
            for turn in range(2):
                for name in names[:6]:
                    self.ask(client, [name], 5)
                    for stream in streams:
                        stream.more()
            after = client.stats()["adapters"]
            self.assertGreater(after["evictions"], before["evictions"] + 8)
            resident = {m["name"] for m in client.modules() if m["resident"]}
            self.assertLessEqual({"a20", "a21", "a22"}, resident)
            for stream in streams:
                stream.stop()
                self.assertIsNone(stream.problem)
            told = daemon.log.read_text()
            self.assertIn("adapter_read", told)
            self.assertIn("adapter_evicted", told)
            for wish in (["a20"], ["a21", "a22"], []):
                limited = self.ask(client, wish)
                with self.daemon(wish, None) as whole, whole.client() as other:
                    self.assertEqual(limited, self.ask(other, wish))

    def test_a_changed_file_fails_its_own_requests_alone(self) -> None:
        for name, seed in (("changed", 50), ("other", 51)):
            self.write(name, seed)
        file = self.adapters / "changed" / "adapter_model.safetensors"
        with self.daemon(["changed", "other"], 1) as daemon, daemon.client() as client:
            good = self.ask(client, ["changed"])
            other = self.ask(client, ["other"])
            kept = file.read_bytes()
            damages = {"other numbers": kept[:-1] + bytes([kept[-1] ^ 1]), "longer": kept + bytes(10_000_000),
                       "cut off": kept[:200], "gone": None}
            for name, damage in damages.items():
                with self.subTest(name):
                    file.unlink()
                    if damage is not None:
                        file.write_bytes(damage)
                    with self.assertRaises(chimera_client.ChimeraError) as refused:
                        self.ask(client, ["changed"])
                    self.assertEqual(refused.exception.code, "data_corrupt")
                    for word in ("module changed", "adapter_model.safetensors"):
                        self.assertIn(word, str(refused.exception))
                    self.assertNotIn(str(self.adapters), str(refused.exception))
                    self.assertEqual(self.ask(client, ["other"]), other)
                    self.assertEqual({m["name"] for m in client.modules()}, {"changed", "other"})
                    if damage is not None:
                        file.unlink()
                    file.write_bytes(kept)
                    self.assertEqual(self.ask(client, ["changed"]), good)
                    self.assertEqual(self.ask(client, ["other"]), other)  # which evicts it
            self.assertEqual(client.stats()["adapters"]["read_failures"], len(damages))

    def test_who_waits_for_memory_can_go_and_holds_up_nobody(self) -> None:
        with self.daemon(["a0", "a1", "a2"], 1, ENDLESS) as daemon, daemon.client() as client, \
                daemon.client() as own:
            waiting = lambda: client.stats()["adapters"]["waiting"]
            free = [self.ask(client, []), self.ask(client, ["a1"])]
            stream = Reader(own, tokens=[1, 2, 3], max_tokens=ENDLESS - 10, temperature=0, ignore_eos=True,
                            modules={"adapters": ["a0"]})
            request = dict(tokens=[1, 2, 3], max_tokens=12, temperature=0, ignore_eos=True, logprobs=True,
                           stream=False, modules={"adapters": ["a1"]})
            left = client.send("generate", **request)
            wait_for(lambda: waiting() == 1, "that it waits")
            late = client.receive("generate", client.send("generate", **request, deadline_ms=50)).body
            self.assertEqual(late["finish_reason"], "deadline")
            self.assertEqual(self.ask(client, []), free[0])  # nobody else waits
            stream.more()
            client.cancel(left)
            self.assertEqual(client.receive("generate", left).body["finish_reason"], "cancelled")
            self.assertEqual(waiting(), 0)
            # One that waits goes on with what is left when its module is withdrawn, and its answer says so.
            both = client.send("generate", **{**request, "modules": {"adapters": ["a2"]}})
            wait_for(lambda: waiting() == 1, "that it waits")
            client.revoke("a2")
            done = client.receive("generate", both).body
            self.assertEqual((done["tokens"], done["logprobs"]), free[0])
            self.assertNotIn("a2", done["provenance"]["modules"])
            goes_on = client.send("generate", **request)
            wait_for(lambda: waiting() == 1, "that it waits")
            stream.stop()
            done = client.receive("generate", goes_on).body
            self.assertEqual((done["tokens"], done["logprobs"]), free[1])
            with self.assertRaises(chimera_client.ChimeraError) as refused:
                self.ask(client, ["a0", "a1"])
            self.assertEqual(refused.exception.code, "resource_exhausted")
            for word in ("a0, a1", "memory.adapters"):
                self.assertIn(word, str(refused.exception))

    def test_only_what_is_used_is_read(self) -> None:
        names = ["a0", "a1", "a2"]
        with self.daemon(names, 1) as daemon, daemon.client() as client:
            plain = self.ask(client, [])
            reads = client.stats()["adapters"]["reads"]
            self.assertEqual(self.ask(client, names, exclude=names), plain)
            score = lambda **modules: client.score(tokens=[1, 2, 3], modules=modules).nats
            self.assertEqual(score(only=["backbone", *names], exclude=names), score(only=["backbone"]))
            client.disable("a2")
            with self.assertRaises(chimera_client.ChimeraError):
                self.ask(client, ["a2"])
            self.assertEqual(client.stats()["adapters"]["reads"], reads)
            self.ask(client, names[:2], exclude=["a1"])
            self.ask(client, names[:2], exclude=["a0"])
            self.assertEqual({m["name"] for m in client.modules() if m["resident"]}, {"a1"})

    def test_changes_of_what_is_not_in_memory(self) -> None:
        self.write("one/comes", 60)
        self.write("two/comes", 61)
        names = ["a0", "a1", "a2", "one/comes"]
        with self.daemon(names, 1) as daemon, daemon.client() as client:
            resident = lambda: {m["name"] for m in client.modules() if m["resident"]}
            first = self.ask(client, ["comes"])
            expected = {name: self.ask(client, [name]) for name in ("a1", "a0")}
            self.assertEqual(resident(), {"a0"})
            client.load(self.adapters / "two" / "comes")
            second = self.ask(client, ["comes"])
            self.assertNotEqual(first, second)
            self.ask(client, ["a0"])
            client.rollback()
            self.assertEqual(self.ask(client, ["comes"]), first)
            self.ask(client, ["a0"])
            self.assertEqual(resident(), {"a0"})
            client.unload("comes")
            client.revoke("a2")
            self.assertEqual({m["name"] for m in client.modules()}, {"a0", "a1"})
            wait_for(lambda: client.stats()["adapters"]["registered"] == 2, "that they are gone")
            planned = client.plan({"modules": self.listed(["a0", "a1", "a2", "a3"])})
            self.assertEqual(planned["refusals"], [])
            self.assertEqual(planned["memory_bytes"], 0)
            daemon.kill()
            daemon.start()
            with daemon.client() as again:
                for name, answer in expected.items():
                    self.assertEqual(self.ask(again, [name]), answer)

    def test_one_that_is_too_large_is_refused_at_once(self) -> None:
        large = self.write("large", 70, ATTENTION + FEED_FORWARD)
        with self.daemon(["a0"], 1) as daemon, daemon.client() as client:
            refusals = client.plan({"modules": self.listed(["a0", "large"])})["refusals"]
            with self.assertRaises(chimera_client.ChimeraError) as refused:
                client.load(large)
            for text in (str(refused.exception), refusals[0]["message"]):
                self.assertIn("module large", text)
                self.assertIn("memory.adapters", text)
            self.assertEqual(refused.exception.code, "resource_exhausted")
            self.ask(client, ["a0"])
            config = json.loads(daemon.config.read_text())
            config["composition"]["modules"] += self.listed(["large"])
            other = self.adapters / "deployment.yaml"
            other.write_text(json.dumps(config))
            checked = run("chimerad", "--config", str(other), "--check", check=False)
            self.assertEqual(checked.returncode, 1)
            self.assertIn("memory.adapters", checked.stderr)
            self.assertIn("adapters ", checked.stdout)


if __name__ == "__main__":
    unittest.main()
