"""The memory plan from outside: the account, refusals before anything is read, a small cache."""
import shutil
import tempfile
import threading
import unittest
from pathlib import Path

from harness import GOLDEN, Daemon, chimera_client, run, split, wait_for

KIB = 1024


class Memory(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="chimera-memory-"))
        self.parts = split(GOLDEN / "flex_olmo_f32", self.scratch, a="4", b="5", c="6")
        self.path = {n: str(self.parts / "modules" / n) for n in "abc"}

    def tearDown(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def daemon(self, **memory: str) -> Daemon:
        return Daemon(self.parts / "backbone", memory=memory,
                      serve={"max_sequences": 8, "max_context": 256})

    def used_without_modules(self) -> int:
        with self.daemon(kv="4MiB") as daemon, daemon.client() as client:
            account = client.stats()["memory"]
            self.assertEqual({part["use"] for part in account["parts"]},
                             {"backbone", "experts", "scratch", "tables", "queues", "gate_samples",
                              "key_value"})
            self.assertEqual(sum(part["bytes"] for part in account["parts"]), account["used_bytes"])
            self.assertEqual(account["budget_bytes"],
                             account["limit_bytes"] - account["reserve_bytes"])
            self.assertEqual(client.info()["memory"]["used_bytes"], account["used_bytes"])
            return account["used_bytes"]

    def test_a_module_that_does_not_fit_is_refused_and_the_daemon_goes_on(self) -> None:
        used = self.used_without_modules()
        module = (Path(self.path["a"]) / "weights.safetensors").stat().st_size
        budget = f"{(used + module * 5 // 2) // KIB} KiB"
        with self.daemon(budget=budget, kv="4MiB") as daemon, daemon.client() as client:
            client.load(self.path["a"])
            before = client.complete(tokens=[5, 6, 7], max_tokens=8, temperature=0)["tokens"]
            client.load(self.path["b"])
            with self.assertRaises(chimera_client.ChimeraError) as refused:
                client.load(self.path["c"])
            self.assertEqual(refused.exception.code, "resource_exhausted")
            for part in ("module c: needs", "of the budget of", "module a 1.0.0"):
                self.assertIn(part, str(refused.exception))
            plan = client.plan({"modules": [{"path": self.path[n]} for n in "abc"]})
            self.assertFalse(plan["accepted"])
            self.assertEqual(plan["refusals"][0]["code"], "resource_exhausted")
            self.assertLessEqual(plan["memory"]["used_bytes"], plan["memory"]["budget_bytes"])
            client.unload("b")
            again = client.complete(tokens=[5, 6, 7], max_tokens=8, temperature=0)["tokens"]
            self.assertEqual(again, before)
            wait_for(lambda: "b 1.0.0" not in [p.get("name") for p in
                                               client.stats()["memory"]["parts"]],
                     "the place of what was unloaded")
            client.load(self.path["c"])

    def test_a_backbone_that_does_not_fit_is_refused_before_it_is_read(self) -> None:
        daemon = Daemon(self.parts / "backbone", memory={"budget": "64KiB"}, start=False)
        try:
            daemon.start(wait=False)
            assert daemon.process is not None
            self.assertEqual(daemon.process.wait(60), 1)
            self.assertIn("of the budget of 64.0 KiB are free", daemon.log_text())
            checked = run("chimerad", "--config", daemon.config, "--check", check=False)
            self.assertEqual(checked.returncode, 1)
            self.assertIn("memory.budget", checked.stderr)
            self.assertRegex(checked.stdout, r"memory +64\.0 KiB \(memory\.budget\)")
        finally:
            shutil.rmtree(daemon.work, ignore_errors=True)

    def test_a_cache_for_little_more_than_one_context_serves_many_clients(self) -> None:
        def answers(daemon: Daemon) -> list[list[int]]:
            out: list[list[int]] = [[] for _ in range(12)]

            def ask(i: int) -> None:
                with daemon.client() as client:
                    out[i] = client.complete(tokens=[i + 1] * 40, max_tokens=120, temperature=0,
                                             ignore_eos=True)["tokens"]

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return out

        with self.daemon() as daemon, daemon.client() as client:
            whole = answers(daemon)
            stats = client.stats()["engine"]
            self.assertEqual(stats["paused"], 0)
            context = stats["kv_bytes_budget"] // 8
        with self.daemon(kv=f"{context // KIB + 1} KiB") as daemon, daemon.client() as client:
            # Whether two of them meet is up to the machine: again until they did.
            stats = client.stats()["engine"]
            for _ in range(20):
                self.assertEqual(answers(daemon), whole)
                stats = client.stats()["engine"]
                if stats["paused"] > 0:
                    break
            self.assertGreater(stats["paused"], 0)
            self.assertLessEqual(stats["kv_bytes_resident"], context + KIB)

    def test_in_400_mb_requests_go_on_and_the_cache_stays_within_them(self) -> None:
        limit = 400_000_000
        daemon = Daemon(self.parts / "backbone", one_heap=True, address_space=limit,
                        serve={"max_sequences": 1024, "max_context": 65536, "max_queue": 2048})
        with daemon, daemon.client() as client:
            account = client.stats()["memory"]
            self.assertEqual(account["source"], "RLIMIT_AS")
            self.assertEqual(account["limit_bytes"], limit)
            budget = client.stats()["engine"]["kv_bytes_budget"]
            self.assertLess(budget, account["budget_bytes"])
            # One at a time, of distinct prompts: nearly half of the cache if each took new blocks.
            for i in range(80):
                done = client.complete(tokens=[i + 1] * 500, max_tokens=4, temperature=0,
                                       ignore_eos=True)
                self.assertEqual(len(done["tokens"]), 4)
            stats = client.stats()
            self.assertLessEqual(stats["engine"]["kv_bytes_resident"], budget // 3)
            self.assertEqual(stats["engine"]["failed"], 0)
            self.assertLess(daemon.resources()["rss_kib"] * KIB, limit)


if __name__ == "__main__":
    unittest.main()
