"""The daemon as an operator meets it: watch folder, plan/apply/rollback, restart, signals, files
that change on disk, clients that vanish."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

import zmq

from harness import (BIN, DEMO, ENDLESS, GOLDEN, SLOW, Daemon, chimera_client, endless, flat, split, wait_for)

PROMPT = [17, 250, 3, 99, 120, 121, 7, 45]


class Lifecycle(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="chimera-life-"))
        self.parts = split(GOLDEN / "flex_olmo_f32", self.scratch, a="4", b="5", c="6")
        self.path = {n: str(self.parts / "modules" / n) for n in "abc"}
        endless(self.parts / "backbone")

    def tearDown(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def names(self, client) -> list[str]:
        return [m["name"] for m in client.modules()]

    def test_plan_apply_rollback_and_restart(self) -> None:
        with Daemon(self.parts / "backbone", modules=[{"path": self.path["a"]}]) as daemon:
            with daemon.client() as client:
                first = client.health()["epoch"]
                spec = {"modules": [{"path": self.path["b"], "bias": 0.5}, {"path": self.path["a"]}]}
                plan = client.plan(spec)
                self.assertTrue(plan["accepted"])
                self.assertGreater(plan["memory_bytes"], 0)
                self.assertEqual(client.health()["epoch"], first)
                applied = client.apply(spec)
                self.assertEqual(applied["composition"], plan["composition"])
                self.assertGreater(applied["epoch"], first)
                self.assertEqual(self.names(client), ["b", "a"])
                back = client.rollback()
                self.assertGreater(back["epoch"], applied["epoch"])
                self.assertEqual(self.names(client), ["a"])
                client.rollback(applied["epoch"])
                self.assertEqual(self.names(client), ["b", "a"])
                last = client.health()["epoch"]
            self.assertEqual(daemon.stop(), 0)
            daemon.start()
            with daemon.client() as client:
                self.assertEqual(self.names(client), ["b", "a"])
                self.assertGreaterEqual(client.health()["epoch"], last)
                self.assertEqual(client.modules()[0]["bias"], 0.5)

    def test_watch_folder(self) -> None:
        drop = self.scratch / "drop"
        drop.mkdir()
        with Daemon(self.parts / "backbone", watch=[str(drop)]) as daemon, daemon.client() as client:
            # Copied in place, slowly, file by file: never seen half-copied.
            hidden = self.scratch / "outside"
            shutil.copytree(self.path["b"], hidden)
            os.rename(hidden, drop / "b")
            wait_for(lambda: self.names(client) == ["b"], "module b loaded from the watch folder")
            os.rename(drop / "b", self.scratch / "taken")
            wait_for(lambda: self.names(client) == [], "module b retired with its folder")

    def test_files_truncated_under_the_daemon(self) -> None:
        checkpoint = self.scratch / "copy"
        shutil.copytree(self.parts / "backbone", checkpoint)
        module = self.scratch / "module"
        shutil.copytree(self.path["a"], module)
        with Daemon(checkpoint, modules=[{"path": str(module)}]) as daemon, daemon.client() as client:
            before = flat(client.score(tokens=PROMPT, logits=True).logits)
            for weights in (*checkpoint.glob("*.safetensors"), module / "weights.safetensors"):
                os.truncate(weights, 100)
            self.assertEqual(flat(client.score(tokens=PROMPT, logits=True).logits), before)
            for weights in (*checkpoint.glob("*.safetensors"), module / "weights.safetensors"):
                weights.write_bytes(b"\xff" * 5000)
            self.assertEqual(flat(client.score(tokens=PROMPT, logits=True).logits), before)

    def test_sigterm_drains_and_a_second_one_stops(self) -> None:
        daemon = Daemon(self.parts / "backbone", serve={"max_context": ENDLESS, "max_sequences": 2})
        self.addCleanup(shutil.rmtree, daemon.work, ignore_errors=True)
        with daemon.client() as client:
            generation = client.generate(tokens=PROMPT, max_tokens=40, temperature=0, ignore_eos=True)
            next(generation)
            daemon.process.send_signal(signal.SIGTERM)
            tokens = 1 + sum(1 for _ in generation)
            self.assertEqual(tokens, 40)
        self.assertEqual(daemon.process.wait(60 * SLOW), 0)

        daemon.start()
        with daemon.client() as client, daemon.client() as observer:
            observer.health()  # connected before the end begins
            generation = client.generate(tokens=PROMPT, max_tokens=ENDLESS - 100, temperature=0,
                                         ignore_eos=True)
            next(generation)
            daemon.process.send_signal(signal.SIGTERM)
            # Two signals that come at the same time are one.
            wait_for(lambda: observer.health()["status"] == "draining", "the drain to begin")
            begin = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            daemon.process.wait(60 * SLOW)
            # The first one alone would give the stream 27 s.
            self.assertLess(time.monotonic() - begin, 20 * SLOW)

    def test_vanished_clients_release_their_slots(self) -> None:
        serve = {"max_context": ENDLESS, "max_sequences": 2}
        with Daemon(self.parts / "backbone", serve=serve) as daemon:
            for _ in range(4):
                client = daemon.client()
                next(client.generate(tokens=PROMPT, max_tokens=ENDLESS - 100, temperature=0,
                                     ignore_eos=True))
                client.close()
            with daemon.client() as client:
                done = client.complete(tokens=PROMPT, max_tokens=4, temperature=0, timeout=60 * SLOW)
                self.assertEqual(len(done["tokens"]), 4)
                # Otherwise the four would have been waited for, one after the other.
                wait_for(lambda: client.stats()["engine"]["live"] == 0, "no stream live")

    def test_cancel_deadline_and_busy(self) -> None:
        # The demo: what waits unread of its stream stays within what may wait.
        backbone = self.parts / "demo"
        shutil.copytree(DEMO / "backbone", backbone)
        endless(backbone)
        serve = {"max_sequences": 1, "max_queue": 1, "max_context": 20_000}
        long_run = {"tokens": PROMPT, "max_tokens": 19_000, "temperature": 0, "ignore_eos": True}
        with Daemon(backbone, serve=serve) as daemon, daemon.client() as client:
            running = client.generate(**long_run)
            next(running)
            queued = client.generate(tokens=PROMPT, max_tokens=1, temperature=0)
            with daemon.client() as other:
                wait_for(lambda: other.stats()["engine"]["waiting"] == 1, "the queue full")
                self.assertRaises(chimera_client.ResourceExhausted, other.complete, tokens=PROMPT,
                                  max_tokens=1)
            running.cancel()
            for _ in running:
                pass
            self.assertEqual(running.done["finish_reason"], "cancelled")
            self.assertEqual(len(list(queued)), 1)
            late = client.generate(**long_run, deadline_ms=50)
            for _ in late:
                pass
            self.assertEqual(late.done["finish_reason"], "deadline")

    def test_changes_of_one_module_are_made_in_the_order_in_which_they_were_sent(self) -> None:
        calls = [("load", {"path": str(self.path["a"])}), ("bias", {"name": "a", "value": 0.5}),
                 ("unload", {"name": "a"}), ("load", {"path": str(self.path["a"]), "bias": -1.0}),
                 ("disable", {"name": "a"})]
        with Daemon(self.parts / "backbone") as daemon, daemon.client() as client, \
                zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(daemon.control_endpoint)
            for i, (call, fields) in enumerate(calls):  # without waiting for answers
                dealer.send_multipart(
                    [b"CHIMERA/1", json.dumps({"id": str(i), "call": call, **fields}).encode()])
            epochs = {}
            for _ in calls:
                self.assertTrue(dealer.poll(60_000 * SLOW))
                answer = json.loads(dealer.recv_multipart()[1])
                self.assertEqual(answer["event"], "done", answer)
                epochs[answer["id"]] = answer["epoch"]
            self.assertEqual(sorted(epochs, key=epochs.get), sorted(epochs))
            (module,) = client.modules()
            self.assertEqual((module["bias"], module["state"]), (-1.0, "disabled"))

    def test_a_change_waits_for_a_free_epoch_and_needs_none_with_restart(self) -> None:
        """That one which waited 30 s is refused, and for whom it waited, is
        RegistryTest.RefusedPublicationIsNotRemembered."""
        serve = {"max_context": ENDLESS, "max_live_epochs": 2, "max_sequences": 2}
        with Daemon(self.parts / "backbone", serve=serve) as daemon:
            ends = [threading.Event(), threading.Event()]

            def hold(end: threading.Event) -> None:
                with daemon.client() as client:
                    generation = client.generate(tokens=PROMPT, max_tokens=ENDLESS - 100,
                                                 temperature=0, ignore_eos=True)
                    for _ in generation:
                        if end.is_set():
                            generation.cancel()

            loaded: list[str] = []

            def load() -> None:
                with daemon.client() as client:
                    client.load(self.path["b"], timeout=60 * SLOW)
                    loaded.append("b")

            with daemon.client() as client:
                holders = []
                for name, end in zip("ab", ends):
                    holders.append(threading.Thread(target=hold, args=(end,)))
                    holders[-1].start()
                    wait_for(lambda: client.stats()["engine"]["live"] == len(holders), "stream live")
                    if name == "a":
                        client.load(self.path["a"])
                waiting = threading.Thread(target=load)
                waiting.start()
                time.sleep(1)  # longer than any load takes; it must not come through
                self.assertEqual((loaded, self.names(client)), ([], ["a"]))
                ends[0].set()
                waiting.join()
                self.assertEqual((loaded, self.names(client)), (["b"], ["a", "b"]))
                client.load(self.path["c"], in_flight="restart")
                self.assertEqual(self.names(client), ["a", "b", "c"])
            ends[1].set()
            for holder in holders:
                holder.join()

    def test_a_load_ends_with_its_client_unless_it_is_detached(self) -> None:
        serve = {"max_context": ENDLESS, "max_live_epochs": 2, "max_sequences": 2}
        with Daemon(self.parts / "backbone", serve=serve) as daemon, daemon.client() as client:
            request = {"tokens": PROMPT, "max_tokens": ENDLESS - 100, "temperature": 0, "ignore_eos": True,
                       "stream": False}  # a stream would have to be read all the time

            def live(count: int) -> None:
                wait_for(lambda: client.stats()["engine"]["live"] == count, f"{count} sequences run")

            with daemon.client() as one, daemon.client() as two:
                # While two epochs are in use, what is loaded waits to be published.
                first = one.generate(**request)
                live(1)
                client.load(self.path["a"])
                second = two.generate(**request)
                live(2)
                epoch = client.health()["epoch"]

                def load(*options: str) -> subprocess.Popen:
                    return subprocess.Popen([BIN / "chimera", "--control", daemon.control_endpoint, "load",
                                             self.path["b"], *options], stdout=subprocess.DEVNULL)

                def wait_until(phase: str) -> None:
                    wait_for(lambda: client.jobs()[-1]["phase"] == phase, f"the load is {phase}")

                with load() as process:
                    wait_until("publishing")
                    process.kill()
                wait_until("cancelled")

                with load("--no-wait") as process:
                    self.assertEqual(process.wait(60 * SLOW), 0)
                wait_until("publishing")
                self.assertIn("publishing", daemon.cli("jobs").stdout)
                job = client.jobs()[-1]["id"]
                self.assertEqual(daemon.cli("cancel", job).stdout, f"cancelled {job}\n")
                wait_until("cancelled")
                self.assertEqual((client.health()["epoch"], self.names(client)), (epoch, ["a"]))

                with load("--detach") as process:
                    wait_until("publishing")
                    process.kill()
                one.cancel(first.id)
                wait_until("done")
                # Epochs only grow; what was cancelled while it waited may have had a number.
                now = client.health()["epoch"]
                self.assertGreater(now, epoch)
                self.assertEqual(client.jobs()[-1]["epoch"], now)
                self.assertEqual(self.names(client), ["a", "b"])
                two.cancel(second.id)


if __name__ == "__main__":
    unittest.main()
