"""What signals, `drain` and `shutdown` do to a running daemon: no stream and no answer is lost."""
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from harness import BUILD, GOLDEN, LONG, SLOW, Daemon, chimera_client, split

PROMPT = [17, 250, 3, 99, 120, 121, 7, 45]
SLOW_DISK = BUILD / "tests" / "slow_disk.so"
SHUTDOWNS = 50 if LONG else 15


def wait_for(condition, what: str, seconds: float = 60.0):
    deadline = time.monotonic() + seconds * SLOW
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds * SLOW} s: {what}")


class Signals(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = Path(tempfile.mkdtemp(prefix="chimera-signals-"))
        cls.parts = split(GOLDEN / "flex_olmo_f32", cls.scratch, a="4", b="5")

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.scratch, ignore_errors=True)

    def stream(self, client, tokens: int = 40):
        generation = client.generate(tokens=PROMPT, max_tokens=tokens, temperature=0,
                                     ignore_eos=True)
        next(generation)
        return generation

    def test_whatever_would_end_a_process_drains_first(self) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
                       signal.SIGXCPU, signal.SIGPROF, signal.SIGALRM, signal.SIGRTMIN):
            with self.subTest(signal=number.name):
                daemon = Daemon(self.parts / "backbone")
                self.addCleanup(shutil.rmtree, daemon.work, ignore_errors=True)
                with daemon.client() as client:
                    generation = self.stream(client)
                    daemon.process.send_signal(number)
                    self.assertEqual(1 + sum(1 for _ in generation), 40)
                self.assertEqual(daemon.process.wait(60 * SLOW), 0)
                self.assertIn(f"draining signal={number.name}", daemon.log_text())

    def test_hangup_reads_the_deployment_again_and_serves_on(self) -> None:
        first, second = self.scratch / "first", self.scratch / "second"
        first.mkdir()
        second.mkdir()
        shutil.copytree(self.parts / "modules" / "b", second / "b")
        with Daemon(self.parts / "backbone", watch=[str(first)]) as daemon, \
                daemon.client() as client:
            generation = self.stream(client, 400)
            config = json.loads(daemon.config.read_text())
            config["watch"] = [str(first), str(second)]
            config["serve"]["max_sequences"] = 7
            config["composition"]["modules"] = [{"path": str(self.parts / "modules" / "a")}]
            daemon.config.write_text(json.dumps(config))
            daemon.process.send_signal(signal.SIGHUP)
            wait_for(lambda: [m["name"] for m in client.modules()] == ["b"],
                     "the module of the new watch directory")
            self.assertEqual(1 + sum(1 for _ in generation), 400)
            log = daemon.log_text()
            self.assertIn("reloaded", log)
            self.assertIn("reload_needs_restart keys=serve.max_sequences ", log)
            self.assertIn("reload_composition", log)
            self.assertEqual(client.info()["max_sequences"], 32)

            # It is watched from now on, and no longer when the file no longer names it.
            os.rename(second / "b", self.scratch / "taken")
            wait_for(lambda: client.modules() == [], "the module retired with its directory")
            config["watch"] = [str(first)]
            daemon.config.write_text(json.dumps(config))
            daemon.process.send_signal(signal.SIGHUP)
            wait_for(lambda: daemon.log_text().count("reloaded") == 2, "the second reload")
            os.rename(self.scratch / "taken", second / "b")
            os.rename(second / "b", first / "b")
            wait_for(lambda: [m["name"] for m in client.modules()] == ["b"], "the watched one")

    def test_hangup_does_not_bring_back_what_was_unloaded_by_hand(self) -> None:
        drop = self.scratch / "dropped"
        drop.mkdir()
        for name in ("a", "b"):
            shutil.copytree(self.parts / "modules" / name, drop / name)

        def names() -> list[str]:
            return [m["name"] for m in client.modules()]

        with Daemon(self.parts / "backbone", watch=[str(drop)]) as daemon:
            with daemon.client() as client:
                wait_for(lambda: names() == ["a", "b"], "the modules of the watch directory")
                client.unload("a")
                daemon.process.send_signal(signal.SIGHUP)
                wait_for(lambda: "module a was unloaded or replaced by hand" in daemon.log_text(),
                         "the refusal")
                self.assertEqual(names(), ["b"])
            self.assertEqual(daemon.stop(), 0)
            daemon.start()
            with daemon.client() as client:
                wait_for(lambda: daemon.log_text().count("by hand") == 2, "the refusal at a start")
                self.assertEqual(names(), ["b"])
                os.rename(drop / "a", self.scratch / "elsewhere")
                os.rename(self.scratch / "elsewhere", drop / "a")  # somebody wants it
                wait_for(lambda: names() == ["b", "a"], "the module that was moved in")

    def test_hangup_with_a_broken_file_changes_nothing(self) -> None:
        drop = self.scratch / "drop"
        drop.mkdir()
        with Daemon(self.parts / "backbone", watch=[str(drop)]) as daemon, \
                daemon.client() as client:
            config = json.loads(daemon.config.read_text())
            for broken in ("serve: {", json.dumps({**config, "watch": ["/nowhere/at/all"]})):
                before = daemon.log_text().count("reload_refused")
                daemon.config.write_text(broken)
                daemon.process.send_signal(signal.SIGHUP)
                wait_for(lambda: daemon.log_text().count("reload_refused") == before + 1,
                         "the refusal in the log")
            shutil.copytree(self.parts / "modules" / "a", self.scratch / "moved")
            os.rename(self.scratch / "moved", drop / "a")
            wait_for(lambda: len(client.modules()) == 1, "the old directory is watched on")

    def test_hangup_while_draining_is_not_a_second_request_to_stop(self) -> None:
        daemon = Daemon(self.parts / "backbone")
        self.addCleanup(shutil.rmtree, daemon.work, ignore_errors=True)
        with daemon.client() as client:
            generation = self.stream(client, 200)
            daemon.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
            daemon.process.send_signal(signal.SIGHUP)
            self.assertEqual(1 + sum(1 for _ in generation), 200)
        self.assertEqual(daemon.process.wait(60 * SLOW), 0)

    def test_a_file_size_limit_refuses_the_change_and_not_the_daemon(self) -> None:
        with Daemon(self.parts / "backbone") as daemon, daemon.client() as client:
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            with self.assertRaises(chimera_client.ChimeraError):
                client.load(self.parts / "modules" / "a")
            self.assertEqual(client.modules(), [])
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE,
                             (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            client.load(self.parts / "modules" / "a")


class Ends(unittest.TestCase):
    def test_health_is_no_success_while_draining(self) -> None:
        with Daemon(GOLDEN / "flex_olmo_f32", serve={"max_context": 4096}) as daemon, \
                daemon.client() as client:
            self.assertEqual(daemon.cli("health").returncode, 0)
            generation = client.generate(tokens=PROMPT, max_tokens=4000, temperature=0,
                                         ignore_eos=True)
            next(generation)
            daemon.cli("drain", "--timeout", "0", check=False)
            told = daemon.cli("health", check=False)
            self.assertNotEqual(told.returncode, 0)
            self.assertIn("draining", told.stdout)
            self.assertIn("health: draining (expected ok)", told.stderr)
            told = daemon.cli("--json", "health", check=False)
            self.assertNotEqual(told.returncode, 0)
            self.assertEqual(json.loads(told.stdout)["status"], "draining")
            generation.cancel()

    @unittest.skipUnless(SLOW_DISK.exists(), "built without sanitizers only")
    def test_shutdown_is_answered_although_the_disk_is_slow(self) -> None:
        """Its record is on disk before it is answered, which may take longer than an end does."""
        with tempfile.TemporaryDirectory(prefix="chimera-disk-") as scratch:
            shut = Path(scratch) / "shut"
            daemon = Daemon(GOLDEN / "flex_olmo_f32", start=False)
            self.addCleanup(shutil.rmtree, daemon.work, ignore_errors=True)
            daemon.environment.update(LD_PRELOAD=str(SLOW_DISK), CHIMERA_TEST_SHUT=str(shut))
            daemon.start()
            told: list[str] = []

            def ask() -> None:
                with daemon.client() as client:
                    client.shutdown()
                    told.append("answered")

            shut.touch()
            asking = threading.Thread(target=ask)
            asking.start()
            wait_for(lambda: "draining" in daemon.log_text(), "the end to begin")
            # Without waiting it ended within two seconds, with nobody answered.
            with self.assertRaises(subprocess.TimeoutExpired):
                daemon.process.wait(4)
            self.assertEqual(told, [])
            shut.unlink()
            asking.join(60 * SLOW)
            self.assertEqual(told, ["answered"], daemon.log_text())
            self.assertEqual(daemon.process.wait(60 * SLOW), 0)

    def test_shutdown_answers_before_it_hangs_up(self) -> None:
        for i in range(SHUTDOWNS):
            daemon = Daemon(GOLDEN / "flex_olmo_f32")
            told = daemon.cli("shutdown", check=False)
            status = daemon.process.wait(60 * SLOW)
            shutil.rmtree(daemon.work, ignore_errors=True)
            self.assertEqual((told.returncode, told.stderr, status), (0, "", 0), i)


if __name__ == "__main__":
    unittest.main()
