"""What clients take: the account that a data owner can bill, limits, and who gets his turn when."""
from __future__ import annotations

import collections
import csv
import io
import json
import unittest

import zmq
import zmq.auth

from harness import ENDLESS, GOLDEN, SLOW, Daemon, Reader, chimera_client, endless, run, split, \
    wait_for
from secured import PROMPT, Secured

FIGURES = ("requests", "prompt_tokens", "completion_tokens", "rows", "share")


class Bill:
    """What the answers said, by client, module and version."""

    def __init__(self) -> None:
        self.sums: dict[tuple, dict] = collections.defaultdict(lambda: dict.fromkeys(FIGURES, 0))

    def add(self, client: str, done: dict) -> None:
        provenance, usage = done["provenance"], done["usage"]
        parts = {"backbone": {"version": "", **provenance["backbone"]}, **provenance["modules"]}
        for name, part in parts.items():
            if name != "backbone" and part["rows"] == 0:
                continue
            row = self.sums[client, name, part["version"]]
            row["requests"] += 1
            for figure in ("prompt_tokens", "completion_tokens"):
                row[figure] += usage[figure]
            for figure in ("rows", "share"):
                row[figure] += part[figure]


def summed(rows: list[dict]) -> dict[tuple, dict]:
    sums: dict[tuple, dict] = collections.defaultdict(lambda: dict.fromkeys(FIGURES, 0))
    for row in rows:
        for figure in FIGURES:
            sums[row["client"], row["module"], row["version"]][figure] += row[figure]
    return sums


class Usage(Secured):
    def setUp(self) -> None:
        super().setUp()
        parts = split(GOLDEN / "flex_olmo_f32", self.work / "parts", a="2", b="4", c="5-6")
        self.backbone = parts / "backbone"
        self.modules = [{"path": str(parts / "modules" / name)} for name in "abc"]
        self.bill = Bill()
        self.keys.add("bob", modules=["a"])
        self.keys.add("owner", ["observe"])

    def ask(self, daemon: Daemon) -> None:
        """Requests of every kind, put on the bill by what their answers say."""
        for name in ("alice", "bob"):
            with daemon.client(**self.keys.of(name)) as client:
                for options in ({}, {"modules": {"exclude": ["a"]}}, {"modules": {"only": []}}):
                    self.bill.add(name, client.complete(tokens=PROMPT, max_tokens=5, **options))
                    self.bill.add(name, client.score(tokens=PROMPT, **options).done)
                    self.bill.add(name, client.embed(tokens=PROMPT, **options).done)
                stream = client.generate(tokens=PROMPT, max_tokens=7)
                stream.text()
                self.bill.add(name, stream.done)
                with self.assertRaises(chimera_client.NotFound):
                    client.complete(tokens=PROMPT, modules={"only": ["nobody"]})

    def check(self, rows: list[dict]) -> None:
        told = summed(rows)
        self.assertEqual(told.keys(), self.bill.sums.keys())
        for key, sums in self.bill.sums.items():
            for figure in FIGURES:
                self.assertAlmostEqual(told[key][figure], sums[figure], places=9, msg=f"{key} {figure}")

    def on_disk(self, daemon: Daemon) -> int:
        """Requests that are written."""
        lines = [json.loads(line) for file in (daemon.work / "state/usage").iterdir()
                 for line in file.read_text().splitlines() if line.endswith("}")]
        return sum(row["requests"] for line in lines for row in line["rows"] if row["module"] == "backbone")

    def requests(self, rows: list[dict]) -> int:
        return sum(row["requests"] for row in rows if row["module"] == "backbone")

    def test_sums_are_those_of_the_answers_after_kill_9_too(self) -> None:
        with self.daemon(self.backbone, modules=self.modules) as daemon:
            self.ask(daemon)
            with daemon.client(**self.keys.of("owner")) as owner:
                self.check(owner.usage())
                self.assertEqual(owner.usage(since=2**33), [])
                with self.assertRaises(chimera_client.ResourceExhausted):
                    owner.usage(limit=1)
            with daemon.client(**self.keys.of("bob")) as bob:
                with self.assertRaises(chimera_client.PermissionDenied):
                    bob.usage()
            self.assertNotIn(("bob", "b", "1.0.0"), self.bill.sums)  # which it may not use
            wait_for(lambda: self.on_disk(daemon) == 20, "the bill is on disk")
            daemon.kill()
            daemon.start()
            with daemon.client(**self.keys.of("owner")) as owner:
                self.check(owner.usage())
            self.ask(daemon)
            with daemon.client(**self.keys.of("owner")) as owner:
                self.check(owner.usage())
            daemon.kill()  # at once: the last second may be missing, and nothing is there twice
            daemon.start()
            with daemon.client(**self.keys.of("owner")) as owner:
                self.assertIn(self.requests(owner.usage()), range(20, 41))
            self.assertEqual(daemon.stop(), 0)
            daemon.start()  # an orderly end loses nothing
            with daemon.client(**self.keys.of("owner")) as owner:
                before = self.requests(owner.usage())
                with daemon.client(**self.keys.of("alice")) as alice:
                    alice.complete(tokens=PROMPT, max_tokens=1)
            self.assertEqual(daemon.stop(), 0)
            daemon.start()
            with daemon.client(**self.keys.of("owner")) as owner:
                self.assertEqual(self.requests(owner.usage()), before + 1)

    def test_answers_that_nobody_waits_for_count(self) -> None:
        endless(self.backbone)
        with self.daemon(self.backbone, modules=self.modules,
                         serve={"max_context": ENDLESS + 500}) as daemon:
            long = {"tokens": PROMPT, "max_tokens": ENDLESS, "ignore_eos": True}
            with daemon.client() as admin:
                with daemon.client(**self.keys.of("alice")) as alice:
                    stream = alice.generate(**long)
                    next(stream)
                wait_for(lambda: self.requests(admin.usage()) == 1, "the one whose client left")
                with daemon.client(**self.keys.of("bob")) as bob:
                    reader = Reader(bob, **long)
                    reader.stop()
                    self.bill.add("bob", reader.done)
                told = summed([row for row in admin.usage() if row["client"] == "bob"])
                self.assertEqual(told["bob", "a", "1.0.0"]["completion_tokens"],
                                 self.bill.sums["bob", "a", "1.0.0"]["completion_tokens"])

    def test_the_command_line(self) -> None:
        with self.daemon(self.backbone, modules=self.modules) as daemon:
            self.ask(daemon)
            keys = self.keys.of("owner")
            cli = ["chimera", "--control", daemon.control_endpoint, "--key", keys["key"],
                   "--server-key", keys["server_key"]]
            rows = list(csv.DictReader(io.StringIO(run(*cli, "usage", "--csv", "--since", "2h").stdout)))
            self.check([{**row, **{figure: float(row[figure]) for figure in FIGURES}} for row in rows])
            by_module = run(*cli, "usage").stdout.splitlines()
            self.assertEqual([line.split()[0] for line in by_module], ["module", "a", "b", "backbone", "c"])
            by_client = run(*cli, "usage", "--by", "client").stdout.splitlines()
            self.assertEqual([line.split()[:2] for line in by_client[1:]], [["alice", "10"], ["bob", "10"]])
            lines = run(*cli[:1], "--json", *cli[1:], "usage").stdout.splitlines()
            self.check([json.loads(line) for line in lines])


class Limits(Secured):
    def limited(self, **limits) -> None:
        self.keys.clients["alice"]["limits"] = limits
        self.keys.write()

    def test_of_one_request(self) -> None:
        self.limited(max_tokens=3, max_context=len(PROMPT) + 2)
        with self.daemon() as daemon, daemon.client(**self.keys.of("alice")) as alice, \
                daemon.client() as root:
            for asked, got in ((100, 2), (1, 1)):
                done = alice.complete(tokens=PROMPT, max_tokens=asked, ignore_eos=True)
                self.assertEqual((len(done["tokens"]), done["finish_reason"]), (got, "length"))
            self.assertEqual(len(alice.complete(tokens=[5], max_tokens=100, ignore_eos=True)["tokens"]), 3)
            for call in (alice.complete, alice.score, alice.embed):
                with self.assertRaises(chimera_client.InvalidArgument) as caught:
                    call(tokens=PROMPT * 2)
                self.assertIn("limits.max_context of client alice", str(caught.exception))
            self.assertEqual(len(root.complete(tokens=PROMPT * 2, max_tokens=9, ignore_eos=True)["tokens"]), 9)

    def test_of_a_minute(self) -> None:
        self.limited(tokens_per_minute=100)
        with self.daemon() as daemon, daemon.client(**self.keys.of("alice")) as alice, \
                daemon.client() as root:
            # What was not needed is given back: 17 tokens, not 400.
            alice.complete(tokens=PROMPT, max_tokens=400, deadline_ms=1)
            alice.complete(tokens=PROMPT, max_tokens=4)
            with self.assertRaises(chimera_client.ResourceExhausted) as caught:
                for _ in range(100):
                    alice.score(tokens=PROMPT * 10)
            self.assertIn("100 tokens a minute", str(caught.exception))
            self.assertRegex(caught.exception.hint, r"try again in \d+ s")
            root.score(tokens=PROMPT)

    def test_of_requests_at_once(self) -> None:
        backbone = split(GOLDEN / "flex_olmo_f32", self.work / "parts", a="2") / "backbone"
        endless(backbone)
        self.limited(in_flight=2, queued=1)
        with self.daemon(backbone, serve={"max_context": ENDLESS + 500}) as daemon, \
                daemon.client() as root, daemon.client(**self.keys.of("alice")) as alice:
            ids = [alice.send("generate", tokens=PROMPT, max_tokens=ENDLESS, ignore_eos=True, stream=False)
                   for _ in range(3)]
            stats = lambda: (lambda e: (e["live"], e["waiting"]))(root.stats()["engine"])  # noqa: E731
            wait_for(lambda: stats() == (2, 1), "two of three run")
            with self.assertRaises(chimera_client.ResourceExhausted) as caught:
                alice.complete(tokens=PROMPT)
            self.assertIn("limits.queued", str(caught.exception))
            root.complete(tokens=PROMPT, max_tokens=1)  # nobody else waits for that
            self.assertEqual(stats(), (2, 1))
            alice.cancel(ids[0])
            wait_for(lambda: stats() == (2, 0), "the third runs")
            for one in ids[1:]:
                alice.cancel(one)

    def test_changed_while_the_daemon_runs(self) -> None:
        with self.daemon() as daemon, daemon.client(**self.keys.of("alice")) as alice:
            self.limited(max_tokens=2)
            wait_for(lambda: len(alice.complete(tokens=PROMPT, max_tokens=9, ignore_eos=True)["tokens"]) == 2,
                     "the new limit")


class Fairness(Secured):
    def setUp(self) -> None:
        super().setUp()
        self.keys.add("mallory")

    def raw(self, daemon: Daemon, context: zmq.Context, client: str) -> zmq.Socket:
        """A DEALER that reads nothing of its own accord: ZeroMQ takes one answer for it."""
        dealer = context.socket(zmq.DEALER)
        self.addCleanup(dealer.close, 0)
        dealer.rcvhwm, dealer.sndhwm, dealer.rcvbuf = 1, 1000, 4096
        dealer.curve_publickey, dealer.curve_secretkey = \
            zmq.auth.load_certificate(self.work / f"{client}.key")
        dealer.curve_serverkey, _ = zmq.auth.load_certificate(self.work / "server.pub")
        dealer.connect(daemon.serve_endpoint)
        return dealer

    def send(self, dealer: zmq.Socket, request_id: int, **fields) -> None:
        dealer.send_multipart([b"CHIMERA/1", json.dumps({"id": str(request_id), **fields}).encode()])

    def test_a_flood_starves_nobody(self) -> None:
        backbone = split(GOLDEN / "flex_olmo_f32", self.work / "parts", a="2") / "backbone"
        endless(backbone)
        with self.daemon(backbone, serve={"max_context": ENDLESS + 500, "max_queue": 64,
                                          "max_sequences": 2}) as daemon, \
                zmq.Context() as context, daemon.client() as root, \
                daemon.client(**self.keys.of("alice")) as alice:
            for _ in range(3):
                dealer = self.raw(daemon, context, "mallory")
                for i in range(64):
                    self.send(dealer, i, call="generate", tokens=PROMPT, max_tokens=200, stream=False,
                              ignore_eos=True)
            wait_for(lambda: root.stats()["engine"]["waiting"] == 64, "the queue is full")
            for _ in range(10):
                self.assertEqual(len(alice.complete(tokens=PROMPT, max_tokens=3, ignore_eos=True)["tokens"]), 3)
            context.destroy(linger=0)

    def test_answers_that_nobody_reads_cost_one_clients_share(self) -> None:
        answers, tokens = 50, (PROMPT * 20)[:250]
        with self.daemon(memory={"unread": "600KiB"}) as daemon, zmq.Context() as context, \
                daemon.client() as root, daemon.client(**self.keys.of("alice")) as alice:
            dealer = self.raw(daemon, context, "mallory")
            for i in range(answers):
                self.send(dealer, i, call="score", tokens=tokens, logits=True)
            engine = lambda: root.stats()["engine"]  # noqa: E731
            wait_for(lambda: engine()["live"] == 0 and engine()["waiting"] > 0, "it has to read first")
            for _ in range(3):
                alice.score(tokens=PROMPT, logits=True)
            self.assertGreater(engine()["waiting"], 10)
            got = set()
            while len(got) < answers:  # and everything comes when it reads
                self.assertTrue(dealer.poll(60_000 * SLOW))
                frames = dealer.recv_multipart()
                body = json.loads(frames[1])
                self.assertEqual(body["event"], "done", body)
                got.add(body["id"])
            wait_for(lambda: engine()["waiting"] == 0, "nobody waits")
            context.destroy(linger=0)


if __name__ == "__main__":
    unittest.main()
