"""Who may ask for what, attacked over real sockets: handshakes, roles, modules, keys that go."""
from __future__ import annotations

import contextlib
import ctypes.util
import itertools
import json
import os
import random
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

import zmq
import zmq.auth

from harness import DEMO, ENDLESS, GOLDEN, SLOW, SOURCE, Daemon, Reader, chimera_client, endless, \
    flat, run, split, wait_for
from secured import PROMPT, Secured
from test_hostile_peers import ended

ROLES = ["use", "observe", "operate", "admin"]


def greeting(mechanism: bytes) -> bytes:
    """With which a peer of ZMTP 3.1 begins."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)


def tcp_peer(daemon: Daemon) -> socket.socket:
    host, port = daemon.serve_endpoint.removeprefix("tcp://").split(":")
    peer = socket.create_connection((host, int(port)))
    peer.settimeout(60 * SLOW)
    return peer


class Handshakes(Secured):
    def test_only_the_right_key_is_served(self) -> None:
        self.keys.add("late", expires="2001-01-01")
        self.keys.make("unknown")
        self.keys.make("other-server")
        with self.daemon() as daemon:
            with daemon.client(**self.keys.of("alice")) as alice:
                self.assertEqual(alice.health()["status"], "ok")
                for who in ("unknown", "late"):
                    with daemon.client(**self.keys.of(who)) as client:
                        with self.assertRaises(chimera_client.PermissionDenied):
                            client.health()
                self.refused(daemon, key=str(self.work / "alice.key"),
                             server_key=str(self.work / "other-server.pub"))
                with self.subTest("mechanisms that are not CURVE"):
                    with zmq.Context() as context:
                        for setting in ({}, {"plain_username": b"a", "plain_password": b"b"}):
                            with context.socket(zmq.DEALER) as dealer:
                                dealer.linger = 0
                                for name, value in setting.items():
                                    setattr(dealer, name, value)
                                dealer.connect(daemon.serve_endpoint)
                                dealer.send_multipart([b"CHIMERA/1", b'{"id":"a","call":"health"}'])
                                self.assertEqual(dealer.poll(1500), 0)
                with self.subTest("mechanisms by name, with all that a peer of theirs says"):
                    dealer = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
                    for mechanism, words in ((b"NULL", [dealer]), (b"PLAIN", [b"\x05HELLO\x01a\x01b", dealer]),
                                             (b"GSSAPI", [b"\x08INITIATE\0\0\0\x01a", dealer])):
                        with tcp_peer(daemon) as peer:
                            peer.sendall(greeting(mechanism) + b"".join(
                                b"\x04" + bytes([len(word)]) + word for word in words))
                            told = b""
                            try:
                                while part := peer.recv(4096):
                                    told += part
                            except ConnectionError:
                                pass  # TimeoutError: it was let in
                            self.assertNotIn(b"READY", told, mechanism)
                            self.assertNotIn(b"WELCOME", told, mechanism)
                self.assertEqual(alice.health()["status"], "ok")
            self.assertIsNone(daemon.process.poll())

    def test_half_open_slow_and_silent_peers_are_gone(self) -> None:
        with self.daemon() as daemon, daemon.client(**self.keys.of("alice")) as alice:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            if hard != resource.RLIM_INFINITY and hard < 2048:
                self.skipTest(f"this system grants {hard} descriptors (the test needs 2048)")
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            hello, peers = greeting(b"CURVE"), []
            slow, sent = tcp_peer(daemon), []

            def drip() -> None:
                """A byte a second: never idle, and no handshake within 5 s."""
                with contextlib.suppress(OSError):
                    for byte in hello:
                        slow.sendall(bytes([byte]))
                        sent.append(byte)
                        time.sleep(1)

            dripping = threading.Thread(target=drip)
            dripping.start()
            for i in range(1000):
                peers.append(tcp_peer(daemon))
                try:  # with so many of one host, the last ones are closed at once
                    peers[-1].sendall((b"", hello, hello[:11])[i % 3])
                except ConnectionError:
                    pass
            self.assertEqual(alice.health()["status"], "ok")
            for peer in peers:  # the daemon ends them: 5 s for a handshake
                self.assertTrue(ended(peer))
                peer.close()
            dripping.join()
            slow.close()
            self.assertLess(len(sent), len(hello), "a slow handshake was waited for")
            self.assertEqual(alice.health()["status"], "ok")

    def test_pyzmq_connects_with_these_keys_as_they_are(self) -> None:
        with self.daemon() as daemon, zmq.Context() as context:
            public, secret = zmq.auth.load_certificate(self.work / "alice.key")
            server, _ = zmq.auth.load_certificate(self.work / "server.pub")
            with context.socket(zmq.REQ) as socket_:
                socket_.linger = 0
                socket_.curve_publickey, socket_.curve_secretkey = public, secret
                socket_.curve_serverkey = server
                socket_.connect(daemon.serve_endpoint)
                socket_.send_multipart([b"CHIMERA/1", b'{"id":"a","call":"health"}'])
                self.assertTrue(socket_.poll(60_000 * SLOW))
                self.assertEqual(json.loads(socket_.recv_multipart()[1])["status"], "ok")

    def test_czmq_connects_with_these_keys_as_they_are(self) -> None:
        library = ctypes.util.find_library("czmq")
        if library is None:
            self.skipTest("no czmq here")
        with self.daemon() as daemon:
            asked = [sys.executable, str(Path(__file__).parent / "czmq_client.py"), library,
                     daemon.serve_endpoint, str(self.work / "alice.key"), str(self.work / "server.pub")]
            answered = subprocess.run(asked, text=True, capture_output=True, timeout=120 * SLOW)
            self.assertEqual(answered.returncode, 0, answered.stderr)
            (answer,) = [line for line in answered.stdout.splitlines() if line.startswith("{")]
            self.assertEqual(json.loads(answer)["status"], "ok")

    def test_the_command_line_and_the_environment(self) -> None:
        with self.daemon() as daemon:
            keys = self.keys.of("alice")
            where = ["--endpoint", daemon.serve_endpoint, "--control", daemon.control_endpoint]
            self.assertIn("ok", run("chimera", *where, "--key", keys["key"], "--server-key",
                                    keys["server_key"], "health").stdout)
            environment = {**os.environ, "CHIMERA_KEY": keys["key"],
                           "CHIMERA_SERVER_KEY": keys["server_key"]}
            self.assertIn("ok", run("chimera", *where, "health", env=environment).stdout)
            denied = run("chimera", *where, "modules", env=environment, check=False)
            self.assertEqual(denied.returncode, 1)
            self.assertIn("client alice has the roles use", denied.stderr)
            unknown = self.keys.make("unknown") and self.keys.of("unknown")
            refused = run("chimera", *where, "--key", unknown["key"], "--server-key",
                          unknown["server_key"], "health", check=False)
            self.assertIn("refuses this client", refused.stderr)
            alone = run("chimera", *where, "--key", keys["key"], "health", check=False)
            self.assertIn("expected key and server key", alone.stderr)


class LocalPeer:
    """A peer of an ipc socket that writes its handshake itself (ZMTP 3.1, NULL)."""

    def __init__(self, endpoint: str, properties: dict[bytes, bytes]) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60 * SLOW)
        self.socket.connect(endpoint.removeprefix("ipc://"))
        self.socket.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32))
        self.read(64)
        body = b"\x05READY" + b"".join(bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
                                       for name, value in properties.items())
        self.socket.sendall(bytes([4, len(body)]) + body)

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("ended")
            data += part
        return data

    def frame(self) -> tuple[int, bytes]:
        flags = self.read(1)[0]
        size = struct.unpack(">Q", self.read(8))[0] if flags & 2 else self.read(1)[0]
        return flags, self.read(size)

    def ask(self, body: dict) -> dict:
        text = json.dumps(body).encode()
        self.socket.sendall(b"\x01\x09CHIMERA/1" + b"\x02" + struct.pack(">Q", len(text)) + text)
        while True:
            flags, data = self.frame()
            if flags & 4 == 0 and flags & 1 == 0:
                return json.loads(data)


class Users(Secured):
    def test_what_a_peer_says_of_itself_counts_for_nothing(self) -> None:
        self.keys.clients["me"] = {"name": "me", "uid": os.geteuid(), "roles": ["use"], "modules": []}
        with self.daemon(tcp=False) as daemon:
            root = b"key:" + self.keys.clients["root"]["public_key"].encode()
            for name, value in ((b"User-Id", root), (b"user-id", root),
                                (b"Peer-Address", b"localhost:0:0:1"), (b"X-User-Id", root)):
                with self.subTest(name=name):
                    peer = LocalPeer(daemon.control_endpoint,
                                     {b"Socket-Type": b"DEALER", name: value})
                    try:
                        answer = peer.ask({"id": "a", "call": "stats"})
                        self.assertEqual(answer["code"], "permission_denied")
                        self.assertIn("client me has the roles use", answer["message"])
                    except ConnectionError:
                        pass  # refused altogether
                    peer.socket.close()

    def test_another_user_is_refused_unless_listed(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("needs root, to be somebody else")
        nobody = 65534
        self.keys.clients["nobody"] = {"name": "nobody", "uid": nobody, "roles": ["use"], "modules": []}
        with self.daemon(tcp=False) as daemon:
            self.work.chmod(0o755)
            daemon.work.chmod(0o755)

            def health_as(uid: int) -> str:
                code = ("import sys; sys.path.insert(0, sys.argv[1]); import chimera_client\n"
                        "try: print(chimera_client.Client(serve=sys.argv[2]).health()['status'])\n"
                        "except chimera_client.ChimeraError as e: print(e.code)")
                return subprocess.run(
                    [sys.executable, "-c", code, str(SOURCE / "clients" / "python"),
                     daemon.serve_endpoint], user=uid, group=uid, text=True, capture_output=True,
                    check=True, timeout=120 * SLOW).stdout.strip()

            self.assertEqual(health_as(nobody), "ok")
            self.assertEqual(health_as(nobody - 1), "permission_denied")
        del self.keys.clients["nobody"]
        with self.daemon(tcp=False) as daemon:  # then the file mode keeps them out
            daemon.work.chmod(0o755)
            self.assertEqual((daemon.work / "serve.sock").stat().st_mode & 0o777, 0o600)


CALLS = {  # a request for each call that would do something, or be refused for another reason
    "generate": {"tokens": [1], "max_tokens": 1}, "chat": {"messages": [{"role": "user", "content": "a"}]},
    "score": {"tokens": [1, 2]}, "embed": {"tokens": [1, 2]}, "tokenize": {"text": "a"}, "detokenize": {"tokens": [1]},
    "cancel": {"target": "x"}, "load": {"path": "/nowhere"}, "unload": {"name": "x"},
    "revoke": {"name": "x"}, "plan": {"composition": {}}, "apply": {"composition": {}},
    "bias": {"name": "x", "value": 1}, "blend": {"name": "x", "lambda": {"y": 1}}, "enable": {"name": "x"}, "disable": {"name": "x"},
    "drain": {"timeout_ms": 0},
}


class Roles(Secured):
    @staticmethod
    def table() -> list[tuple[str, str, dict[str, bool]]]:
        text = (SOURCE / "docs" / "security.md").read_text()
        text = text[text.index("<!-- calls:"):text.index("<!-- end of calls")]
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \|(.*)\|$", text, re.M)
        return [(call, endpoint, dict(zip(ROLES, ["yes" in cell for cell in cells.split("|")])))
                for call, endpoint, cells in rows]

    def test_every_pair_is_allowed_or_refused_as_the_table_says(self) -> None:
        for role in ROLES:
            self.keys.add(f"one-{role}", [role])
        table = self.table()
        self.assertGreater(len(table), 20)
        ending = ("drain", "shutdown")  # after all others: the daemon is another one then
        with self.daemon() as daemon, daemon.client() as admin:

            def state() -> tuple:
                health = admin.health()
                return admin.info()["composition"], health["epoch"], health["status"]

            for call, endpoint, allowed in sorted(table, key=lambda row: row[0] in ending):
                # Those who may not come first, so that nothing has happened yet when they ask.
                for role in sorted(ROLES, key=lambda role: allowed[role]):
                    with self.subTest(call=call, endpoint=endpoint, role=role), \
                            daemon.client(**self.keys.of(f"one-{role}")) as client:
                        before = state()
                        connection = client.connection("info" if endpoint == "serve" else "stats")
                        connection.send("m", {"id": "m", "call": call, **CALLS.get(call, {})})
                        try:
                            while not connection.receive("m", 60 * SLOW).final:
                                pass
                            code = "ok"
                        except chimera_client.ChimeraError as problem:
                            code = problem.code
                        self.assertEqual(code != "permission_denied", allowed[role], code)
                        if not allowed[role]:
                            self.assertEqual(state(), before)
                    if call == "shutdown" and allowed[role]:
                        break
            self.assertEqual(daemon.process.wait(60 * SLOW), 0)


class KeysThatGo(Secured):
    def test_who_is_taken_out_is_cut_off_and_the_others_stay(self) -> None:
        backbone = self.work / "backbone"
        shutil.copytree(DEMO / "backbone", backbone)
        endless(backbone)
        self.keys.add("bob")
        with self.daemon(backbone, serve={"max_context": 20_000}) as daemon, \
                daemon.client(**self.keys.of("alice")) as alice, \
                daemon.client(**self.keys.of("bob")) as bob:
            long = {"tokens": [1, 2, 3], "max_tokens": 19_000, "ignore_eos": True, "temperature": 0}
            of_alice, of_bob = Reader(alice, **long), Reader(bob, **long)
            gone = self.keys.clients.pop("alice")
            self.keys.write()
            began = time.monotonic()
            of_alice.join(60 * SLOW)
            took = time.monotonic() - began
            self.assertIsInstance(of_alice.problem, chimera_client.PermissionDenied)
            with self.assertRaises((chimera_client.PermissionDenied, chimera_client.Unavailable)):
                alice.health()
            of_bob.more()
            of_bob.stop()
            self.assertIsNone(of_bob.problem)
            with daemon.client() as admin:
                wait_for(lambda: admin.stats()["engine"]["live"] == 0, "the sequence of alice ended")
            self.refused(daemon, **self.keys.of("alice"))
            self.keys.clients["alice"] = gone
            self.keys.write()

            def back() -> bool:
                try:
                    with daemon.client(**self.keys.of("alice")) as again:
                        return again.health()["status"] == "ok"
                except chimera_client.ChimeraError:
                    return False

            wait_for(back, "alice is a client again")
            print(f"cut off after {took:.2f} s", file=sys.stderr)

    def test_a_file_with_mistakes_changes_nothing(self) -> None:
        with self.daemon() as daemon, daemon.client(**self.keys.of("alice")) as alice:
            (self.work / "clients.yaml").write_text("chimera: clients/1\nclients: {}\n")
            wait_for(lambda: "clients_refused" in daemon.log_text(), "the mistake is told")
            self.assertEqual(alice.health()["status"], "ok")


class Entitlements(Secured):
    """What a client may not use is for it as if it were not loaded."""

    def setUp(self) -> None:
        super().setUp()
        parts = split(GOLDEN / "flex_olmo_f32", self.work / "parts", a="2", b="4", c="5-6")
        self.backbone = parts / "backbone"
        self.modules = {name: {"path": str(parts / "modules" / name)} for name in "abc"}

    def me(self, modules) -> None:
        self.keys.clients["me"] = {"name": "me", "uid": os.geteuid(), "roles": ["use"],
                                   "modules": modules}
        self.keys.write()

    def answers(self, client) -> list:
        out: list = [client.info()]
        for options in ({}, {"modules": {"exclude": ["c"]}}, {"modules": {"only": []}},
                        {"modules": {"only": ["a"]}}, {"modules": {"only": ["b"]}},
                        {"modules": {"exclude": ["a"]}}, {"modules": {"bias": {"b": 1.0}}},
                        {"modules": {"bias": {"c": 0.5}}}, {"modules": {"exclude": ["nobody"]}}):
            try:
                score = client.score(tokens=PROMPT, logits=True, routing=True, **options)
                out.append((flat(score.logits), score.routing, score.provenance))
                out.append(client.embed(tokens=PROMPT, **options).embedding)
                done = client.complete(tokens=PROMPT, max_tokens=8, temperature=0, **options)
                out.append((done["tokens"], done["provenance"]))
            except chimera_client.ChimeraError as problem:
                out.append((problem.code, problem.message, problem.hint))
        for body in out:
            body_id = isinstance(body, dict) and body.pop("id", None)
            del body_id
        return out

    def test_as_a_daemon_that_holds_nothing_else(self) -> None:
        for rights in (["c"], ["a", "c"], ["b*"], [], ["*"]):
            held = [name for name in "abc" if name in rights or rights == ["*"] or
                    (rights == ["b*"] and name == "b")]
            with self.subTest(rights=rights):
                with Daemon(self.backbone, modules=[self.modules[n] for n in held]) as daemon, \
                        daemon.client() as client:
                    expected = self.answers(client)
                self.me(rights)
                with self.daemon(self.backbone, tcp=False,
                                 modules=list(self.modules.values())) as daemon, \
                        daemon.client() as client:
                    answers = self.answers(client)
                # The account of memory would tell of modules that are hidden: only who may use all
                # of them sees it.
                expected[0].pop("memory")
                self.assertNotIn("memory", answers[0])
                self.assertEqual(answers, expected)

    def test_drawn_rights_requests_and_compositions(self) -> None:
        """As a daemon that holds only what the client may use, 200 times."""
        seed = os.environ.get("CHIMERA_SEED", "16")
        rng = random.Random(seed)
        names = sorted(self.modules)
        rights = [set(some) for n in range(4) for some in itertools.combinations(names, n)]
        clients = ["may-" + "-".join(sorted(some)) for some in rights]
        for client, some in zip(clients, rights):
            self.keys.add(client, modules=sorted(some))

        def drawn_request() -> dict:
            some = rng.sample([*names, "nobody"], rng.randint(0, 3))
            modules = rng.choice(({}, {"only": some}, {"exclude": some}))
            if rng.random() < 0.5:
                modules = {**modules, "bias": {rng.choice(names): rng.randint(-8, 8) / 4}}
            tokens = [rng.randrange(256) for _ in range(rng.randint(1, 12))]
            return {"tokens": tokens, **({"modules": modules} if modules else {})}

        def told(client, request: dict) -> list:
            info = client.info()
            for key in ("id", "epoch", "memory"):  # its numbers count the changes of all
                info.pop(key, None)
            try:
                score = client.score(logits=True, routing=True, **request)
                return [info, flat(score.logits), score.routing, {**score.provenance, "epoch": 0}]
            except chimera_client.ChimeraError as problem:
                return [info, problem.code, problem.message, problem.hint]

        with self.daemon(self.backbone) as daemon, Daemon(self.backbone) as bare, \
                daemon.client() as admin, bare.client() as reference, contextlib.ExitStack() as open_:
            asking = [open_.enter_context(daemon.client(**self.keys.of(client))) for client in clients]
            for _ in range(25):
                loaded = [{**self.modules[n], "bias": rng.randint(-8, 8) / 4}
                          for n in rng.sample(names, rng.randint(0, 3))]
                admin.apply({"modules": loaded})
                for client, some in zip(asking, rights):
                    paths = [self.modules[n]["path"] for n in some]
                    reference.apply({"modules": [m for m in loaded if m["path"] in paths]})
                    request = drawn_request()
                    self.assertEqual(told(client, request), told(reference, request),
                                     (f"CHIMERA_SEED={seed}", sorted(some), request, loaded))

    def test_mixed_in_one_batch_and_changed_while_it_runs(self) -> None:
        self.keys.add("legal", modules=["a"])
        endless(self.backbone)
        with self.daemon(self.backbone, modules=list(self.modules.values()),
                         serve={"max_context": ENDLESS + 500}) as daemon, daemon.client() as admin, \
                daemon.client(**self.keys.of("legal")) as legal, daemon.client() as other, \
                daemon.client(**self.keys.of("legal")) as runner:
            alone = flat(legal.score(tokens=PROMPT, logits=True).logits)
            long = {"tokens": PROMPT, "max_tokens": ENDLESS, "ignore_eos": True, "temperature": 0}
            beside, running = Reader(other, **long), Reader(runner, **long)
            self.assertEqual(flat(legal.score(tokens=PROMPT, logits=True).logits), alone)
            self.keys.clients["legal"]["modules"] = ["b"]
            self.keys.write()
            wait_for(lambda: [m["name"] for m in legal.info()["modules"]] == ["b"], "other rights")
            restarted = lambda: admin.stats()["engine"]["restarted"] >= 1  # noqa: E731
            wait_for(restarted, "the request in progress has them, too")
            running.more()
            running.stop()
            self.assertIsNone(running.problem)
            modules = running.done["provenance"]["modules"]
            self.assertIn("b", modules)  # and `a` for what it had computed
            self.assertNotIn("c", modules)
            with self.assertRaises(chimera_client.NotFound) as caught:
                legal.score(tokens=PROMPT, modules={"only": ["a"]})
            self.assertNotIn('a"', str(caught.exception).split("(loaded")[1])
            beside.stop()
            self.assertIsNone(beside.problem)


class Outputs(Secured):
    def test_errors_and_logs_tell_no_paths_keys_or_prompts(self) -> None:
        prompt = "the patient of room seventeen"
        wrong: list[tuple[str, dict]] = [
            ("generate", {"prompt": prompt, "temperature": -1}), ("generate", {"prompt": prompt, "modules": {"only": ["x"]}}),
            ("generate", {"prompt": prompt, "mudules": {}}), ("generate", {"tokens": [10**9]}), ("generate", {}),
            ("generate", {"prompt": prompt * 2000}), ("score", {"text": ""}), ("score", {"text": 1}),
            ("chat", {"messages": [{"role": "user", "content": prompt}], "template": "x"}), ("embed", {"text": 3}),
            ("generate", {"prompt": prompt, "constraint": {"json_schema": {"not": {}}}}), ("detokenize", {"tokens": [-1]}),
            ("generate", {"prompt": prompt, "receipt": 1}), ("cancel", {}), ("load", {"path": str(SOURCE)}), ("nothing", {})]
        ugly = "a\x1b[31m\n\x9b"
        wrong += [("generate", {"prompt": "a", "modules": {"only": [ugly]}}), ("generate", {"prompt": "a", ugly: 1}), (ugly, {})]
        with self.daemon(DEMO / "backbone", log_level="debug", modules=[{"path": str(SOURCE / "experts" / "legal")}]) as daemon, \
                daemon.client(**self.keys.of("alice")) as alice:
            told = [json.dumps(alice.info(), ensure_ascii=False)]
            connection = alice.connection("info")
            for i, (call, fields) in enumerate(wrong):
                connection.send(f"w{i}", {"id": f"w{i}", "call": call, **fields})
                with self.assertRaises(chimera_client.ChimeraError, msg=(call, fields)) as caught:
                    while not connection.receive(f"w{i}", 60 * SLOW).final:
                        pass
                told.append(f"{caught.exception.message} {caught.exception.hint}")
            alice.complete(prompt, max_tokens=2)
            log = daemon.log.read_text()
        keys = [line.split('"')[1] for file in self.work.glob("*.key") for line in file.read_text().splitlines()
                if "secret-key" in line]
        self.assertGreaterEqual(len(keys), 3)
        for text in told:
            for word in (str(self.work), str(daemon.work), str(SOURCE), "/proc/", "/dev/", "memfd:", prompt, *keys):
                self.assertNotIn(word, text)
            self.assertIsNone(re.search(r"[\x00-\x1f\x7f-\x9f]", text), text)
        for word in (prompt, *keys):
            self.assertNotIn(word, log)
        self.assertIsNone(re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", log), log)


class Record(Secured):
    def test_changes_refusals_and_failures_are_recorded(self) -> None:
        with self.daemon() as daemon, daemon.client() as admin, \
                daemon.client(**self.keys.of("alice")) as alice:
            epoch = admin.health()["epoch"]
            with self.assertRaises(chimera_client.ChimeraError):
                admin.load("/no/such/module")
            with self.assertRaises(chimera_client.PermissionDenied):
                alice.load("/no/such/module")
            alice.complete(tokens=[1, 2, 3], max_tokens=1)
            told = [(e["principal"], e["call"], e["result"]) for e in admin.audit()]
            self.assertEqual(told, [("root", "load", "not_found"), ("alice", "load", "permission_denied")])
            first = admin.audit()[0]
            self.assertEqual(first["arguments"]["path"], "/no/such/module")
            self.assertEqual((first["epoch_before"], first["epoch_after"]), (epoch, epoch))
            self.assertRegex(first["peer"], r"^127\.0\.0\.1:\d+$")
            self.assertEqual(admin.audit(since=2**33), [])
            shown = run("chimera", "--control", daemon.control_endpoint, "--key",
                        self.keys.of("root")["key"], "--server-key", self.keys.of("root")["server_key"],
                        "audit", "--since", "1h").stdout
            self.assertIn("permission_denied", shown)
            self.assertIn("/no/such/module", shown)


if __name__ == "__main__":
    unittest.main()
