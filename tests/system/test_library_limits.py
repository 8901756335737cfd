"""What a library may take of a daemon: no more than its deployment allows, and its life only once."""
import pathlib
import shutil
import tempfile
import threading
import unittest
from typing import Any

from harness import BUILD, SLOW, SOURCE, Daemon, run, wait_for
from test_isolation import hosts_of, stream, write_module
import chimera_client

BACKBONE = SOURCE / "experts" / "backbone"
LEGAL = SOURCE / "experts" / "legal"
LIBRARY = BUILD / "plugins" / "runtime_sinner_demo.so"
PROBED = 100  # calls: past self-test and probe


class LibraryTest(unittest.TestCase):
    def setUp(self) -> None:
        if not LIBRARY.exists():
            self.skipTest(f"{LIBRARY} is not built")
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="chimera-limits-"))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)

    def daemon(self, modules: list[pathlib.Path] | None = None, **options: Any) -> Daemon:
        return Daemon(BACKBONE, modules=[{"path": str(m)} for m in [LEGAL, *(modules or [])]],
                      precision="bf16", top_k=2, **options)

    def module(self, sin: str, **options: Any) -> pathlib.Path:
        return write_module(self.scratch / sin.replace(" ", "-"), sin, **options)


class Ceilings(LibraryTest):
    def test_who_asks_for_more_is_refused_by_name_before_its_code_runs(self) -> None:
        deadline = int(500 * SLOW)
        most = {"max_deadline_ms": deadline, "max_memory": "64MiB"}
        greedy = self.module(f"spin {PROBED}", deadline_ms=30 * deadline, memory_mib=65)
        modest = self.module("none 0", deadline_ms=deadline, memory_mib=64)
        causes = ("module sinner",
                  f"library.deadline_ms: found {30 * deadline} (expected at most {deadline},",
                  "library.memory_mib: found 65 (expected at most 64,")
        # The deployment asks for it as well: the daemon starts without.
        with self.daemon([greedy], libraries=most) as daemon, daemon.client() as client:
            before = client.stats()["epoch"]
            checked = run("chimerad", "--config", daemon.config, "--check", check=False)
            with self.assertRaises(chimera_client.PermissionDenied) as refused:
                client.load(greedy)
            plan = client.plan({"modules": [{"path": str(greedy)}]})
            for cause in causes:
                self.assertIn(cause, daemon.log_text())
                self.assertIn(cause, checked.stderr)
                self.assertIn(cause, str(refused.exception))
                self.assertIn(cause, str(plan["refusals"]))
            self.assertNotEqual(checked.returncode, 0)
            self.assertEqual(hosts_of(daemon.pid), [])
            self.assertEqual(client.stats()["epoch"], before)
            client.load(modest)

    def test_loading_has_its_time(self) -> None:
        with self.daemon(libraries={"max_load_ms": 300}) as daemon, daemon.client() as client:
            with self.assertRaises(chimera_client.DeadlineExceeded) as refused:
                client.load(self.module("hang_in_activate 0"))
            self.assertIn("within 300 ms, libraries.max_load_ms", str(refused.exception))
            wait_for(lambda: not hosts_of(daemon.pid), "its process gone")
            self.assertEqual([m["name"] for m in client.modules()], ["legal"])

    def test_a_step_goes_on_without_who_is_slow_within_its_deadline(self) -> None:
        patient = 600_000  # ms; a step that waited for it would outlast every wait here
        most = int(3000 * SLOW)  # far above what an honest call takes on a busy machine
        slow = self.module(f"gives_up {PROBED}", deadline_ms=patient)
        with self.daemon(libraries={"max_deadline_ms": patient, "max_step_ms": most}) as daemon, \
                daemon.client(timeout=120 * SLOW) as client:
            quiet = stream(client, 1, ["legal"])[0]
            client.load(slow)
            (host,) = hosts_of(daemon.pid)
            with self.assertRaises(chimera_client.Unavailable) as late:
                for seed in range(1, 100):
                    stream(client, seed, ["sinner"])
            self.assertIn("module sinner", str(late.exception))
            self.assertRegex(str(late.exception), "libraries.max_step_ms|rests, as a step")
            self.assertEqual(stream(client, 1, ["legal"])[0], quiet)
            self.assertEqual(hosts_of(daemon.pid), [host], "it did nothing wrong")
            self.assertIn(f"a step went on without it after {most} ms", daemon.log_text())

    def test_a_hanging_load_holds_up_nobody_and_ends_when_it_is_not_wanted(self) -> None:
        hanging = self.module("hang_in_activate 0")
        ends: list[str] = []

        def load() -> None:
            try:
                with daemon.client(timeout=120 * SLOW) as other:
                    other.load(hanging)
            except chimera_client.ChimeraError as error:
                ends.append(error.code)

        with self.daemon(libraries={"max_load_ms": 3_600_000}) as daemon, daemon.client() as client:
            quiet = stream(client, 1, ["legal"])[0]
            thread = threading.Thread(target=load)
            thread.start()
            wait_for(lambda: hosts_of(daemon.pid), "its process")
            client.bias("legal", 0.5)
            client.unload("legal")
            client.load(LEGAL)
            self.assertEqual(stream(client, 1, ["legal"])[0], quiet)
            self.assertEqual(ends, [])
            client.revoke("sinner")
            thread.join(60 * SLOW)
            self.assertEqual(ends, ["unavailable"])
            wait_for(lambda: not hosts_of(daemon.pid), "its process gone")
            # And a daemon that stops does not wait for one either.
            thread = threading.Thread(target=load)
            thread.start()
            wait_for(lambda: hosts_of(daemon.pid), "its process")
            self.assertEqual(daemon.stop(), 0)
            thread.join(60 * SLOW)

    def test_one_that_hangs_inside_the_daemon_takes_nobody_along(self) -> None:
        hanging = self.module("hang_in_activate 0", isolation="in-process")
        other = self.module("none 0", isolation="in-process")
        manifest = other / "module.yaml"
        manifest.write_text(manifest.read_text().replace("name: sinner", "name: other"))
        ends: list[str] = []

        def load(daemon: Daemon) -> None:
            try:
                with daemon.client(timeout=120 * SLOW) as mine:
                    mine.load(hanging)
            except chimera_client.ChimeraError as error:
                ends.append(error.code)

        # It cannot be ended: not by time, not by its client, not by a signal to the daemon.
        most = int(2000 * SLOW)
        with self.daemon(in_process=True, libraries={"max_load_ms": most}) as daemon, \
                daemon.client(timeout=120 * SLOW) as client:
            quiet = stream(client, 1, ["legal"])[0]
            thread = threading.Thread(target=load, args=(daemon,))
            thread.start()
            wait_for(lambda: f"is not loaded after {most} ms" in daemon.log_text(), "its time is over")
            client.bias("legal", 0.5)
            client.unload("legal")
            client.load(LEGAL)
            self.assertEqual(stream(client, 1, ["legal"])[0], quiet)
            with self.assertRaises(chimera_client.ChimeraError) as behind:
                client.load(other)
            self.assertIn("module sinner", str(behind.exception))
            self.assertEqual(stream(client, 1, ["legal"])[0], quiet)
            self.assertEqual(daemon.stop(), 0)
            thread.join(60 * SLOW)
            self.assertEqual(len(ends), 1, "its client was told")
        with self.daemon(in_process=True, libraries={"max_load_ms": 3_600_000}) as daemon, daemon.client() as client:
            thread = threading.Thread(target=load, args=(daemon,))
            thread.start()
            wait_for(lambda: any(job["modules"] == ["sinner"] for job in client.jobs()), "its load")
            self.assertEqual(daemon.stop(), 0)
            thread.join(60 * SLOW)
            self.assertEqual(len(ends), 2, "its client was told")


@unittest.skipIf(SLOW > 1, "a sanitizer's report of the crash is taken for a finding")
class Crashes(LibraryTest):
    """A library inside the daemon takes it along. It is named, and not started again unless told."""

    def crash(self, sin: str, status: int, during: str) -> None:
        module = self.module(sin, isolation="in-process")
        with tempfile.TemporaryDirectory(prefix="chimera-crash-") as work:
            daemon = self.daemon(in_process=True, work=pathlib.Path(work))
            with daemon.client(timeout=60) as client:
                try:
                    client.load(module)
                    for seed in range(1, 40):
                        stream(client, seed, ["sinner"])
                except chimera_client.ChimeraError:
                    pass
            assert daemon.process is not None
            self.assertEqual(daemon.process.wait(60 * SLOW), status)
            cause = "called exit" if sin.startswith("exit") else "was killed by signal"
            self.assertRegex(daemon.log_text(), "library_ended_daemon module=sinner version=1.0.0 "
                                                f"reason=\"{cause}.*{during}\"")
            daemon.log.unlink()
            daemon.start()
            with daemon, daemon.client() as client:
                self.assertEqual([m["name"] for m in client.modules()], ["legal"])
                with self.assertRaises(chimera_client.FailedPrecondition) as refused:
                    client.load(module)
                for text in ("module sinner", "version 1.0.0 ended the daemon", cause, during,
                             "remove quarantine/"):
                    self.assertRegex(str(refused.exception), text)
                if not sin.startswith("crash_in_prepare"):  # the state names it
                    self.assertRegex(daemon.log_text(), "module_left_out.*module sinner.*ended the daemon")
                (record,) = (daemon.work / "state" / "quarantine").iterdir()
                record.unlink()
                if sin.startswith("crash_in_prepare"):
                    return
                client.load(module)  # as it was told to
                self.assertIn("sinner", [m["name"] for m in client.modules()])

    def test_segfault(self) -> None:
        self.crash(f"segfault {PROBED}", -11, "in a forward call of epoch [0-9]+")

    def test_abort(self) -> None:
        self.crash(f"abort {PROBED}", -6, "in a forward call of epoch [0-9]+")

    def test_exit(self) -> None:
        self.crash(f"exit {PROBED}", 1, "in a forward call of epoch [0-9]+")

    def test_while_it_is_loaded(self) -> None:
        self.crash("crash_in_prepare", -11, "while it was loaded")


if __name__ == "__main__":
    unittest.main()
