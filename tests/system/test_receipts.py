"""Statements that the daemon signs: receipts of answers, proofs of revocations."""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import unittest
from pathlib import Path

from harness import BUILD, DEMO, ENDLESS, GOLDEN, Daemon, Reader, chimera_client, endless, run, split, wait_for
from secured import PROMPT, Secured


def canonical(value) -> str:
    """RFC 8785 for what has no reals."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value) -> str:
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()


def enlarge(file: Path, size: int = 300 << 20) -> int:
    """Adds a tensor that nobody needs, and no bytes on the disk: a checkpoint that large is mapped.
    Where its other tensors begin."""
    data = file.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header, end = json.loads(data[8:8 + length]), len(data) - 8 - length
    header["zz.unused"] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)  # what is not aligned is copied
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data[8 + length:])
        out.truncate(8 + len(text) + end + size)
    return 8 + len(text)


class Statements(Secured):
    def setUp(self) -> None:
        super().setUp()
        parts = split(GOLDEN / "flex_olmo_f32", self.work / "parts", a="2", b="4", c="5-6")
        self.backbone = parts / "backbone"
        self.modules = [{"path": str(parts / "modules" / name)} for name in "abc"]

    def file(self, text: str, name: str = "statement.json") -> str:
        (self.work / name).write_text(text)
        return str(self.work / name)

    def verify(self, text: str, *more: str, key: str = "server.pub", check: bool = True):
        return run("chimera", "--json", "--server-key", str(self.work / key), "receipt", "verify",
                   self.file(text), *more, check=check)

    def stated(self, text: str, *more: str) -> dict:
        return json.loads(self.verify(text, *more).stdout)

    def refused(self, text: str, **options) -> dict:
        ended = self.verify(text, check=False, **options)
        self.assertEqual(ended.returncode, 1, ended.stdout)
        return json.loads(ended.stderr)


class Receipts(Statements):
    def test_are_not_made_of_files_that_somebody_wrote_to(self) -> None:
        backbone = self.work / "mapped"
        shutil.copytree(self.backbone, backbone)
        first = enlarge(backbone / "model.safetensors")
        endless(backbone)
        with self.daemon(backbone, serve={"max_context": ENDLESS + 500}) as daemon, \
                daemon.client(**self.keys.of("alice")) as alice, \
                daemon.client(**self.keys.of("alice")) as other:
            self.assertEqual(alice.info()["changed_files"], [])
            before = alice.call("score", tokens=PROMPT, receipt=True)
            running = Reader(other, tokens=PROMPT, max_tokens=ENDLESS, ignore_eos=True, temperature=0,
                             receipt=True)
            with (backbone / "model.safetensors").open("r+b") as file:
                file.seek(first)
                file.write(bytes(1 << 20))
            wait_for(lambda: alice.info()["changed_files"] == ["model.safetensors"], "the change told")
            with self.assertRaises(chimera_client.FailedPrecondition) as refused:
                alice.call("score", tokens=PROMPT, receipt=True)
            self.assertIn("were written to", str(refused.exception))
            self.assertNotIn(str(self.work), str(refused.exception))
            running.stop()  # it was asked for before
            self.assertIn("were written to", str(running.problem))
            wait_for(lambda: "mapped_file_changed" in daemon.log_text(), "the event")
            # Here is why: the digests are the same, and the numbers are not.
            after = alice.call("score", tokens=PROMPT)
            self.assertEqual(after["provenance"]["composition"], before["provenance"]["composition"])
            self.assertNotEqual(after["nats"], before["nats"])

    def test_say_what_made_the_answer(self) -> None:
        with self.daemon(self.backbone, modules=self.modules) as daemon, \
                daemon.client(**self.keys.of("alice")) as alice:
            self.assertNotIn("receipt", alice.complete(tokens=PROMPT, max_tokens=1))
            asked = {"tokens": PROMPT, "max_tokens": 5, "receipt": True}
            for call, request in (("generate", {**asked, "stream": False}),
                                  ("generate", {**asked, "modules": {"exclude": ["b"]}}),
                                  ("score", {"tokens": PROMPT, "receipt": True})):
                request = {"id": f"r-{call}", "call": call, **request}
                done = alice.call(call, **{k: v for k, v in request.items() if k != "call"})
                stated = self.stated(chimera_client.receipt_text(done) + "\n", "--request",
                                     self.file(json.dumps(request, indent=2), "request.json"))
                provenance = dict(stated["provenance"])
                epochs = provenance.pop("epochs")
                self.assertEqual(provenance, done["provenance"])
                self.assertEqual(epochs, [{"epoch": provenance["epoch"], "from": 0,
                                           "composition": provenance["composition"]}])
                self.assertEqual((stated["call"], stated["id"], stated["client"]), (call, request["id"], "alice"))
                self.assertEqual(stated["request"], digest(request))
                for field in ("usage", "finish_reason", *(["nats", "count"] if call == "score" else [])):
                    self.assertEqual(stated[field], done[field])
                if "tokens" in done:
                    self.assertEqual(stated["tokens"], digest(done["tokens"]))
                self.assertRegex(stated["time"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            other = self.file(json.dumps({**request, "deadline_ms": 9}), "other.json")
            ended = self.verify(chimera_client.receipt_text(done), "--request", other, check=False)
            self.assertIn("permission_denied", ended.stderr)

    def test_of_the_command_line(self) -> None:
        self.keys.clients["root"]["uid"] = os.getuid()
        del self.keys.clients["root"]["public_key"]
        with self.daemon(DEMO / "backbone", tcp=False, precision="bf16") as daemon:
            receipt = self.work / "r.json"
            daemon.cli("generate", "a", "--max-tokens", "2", "--receipt", str(receipt))
            shown = run("chimera", "receipt", "verify", str(receipt), "--server-key",
                        str(self.work / "server.key")).stdout
            self.assertIn("verified", shown)
            self.assertIn("backbone", shown)
            again = daemon.cli("generate", "a", "--receipt", str(receipt), check=False)
            self.assertIn("is there already", again.stderr)

    def test_changed_ones_and_those_of_others_are_refused(self) -> None:
        self.keys.make("elsewhere")
        with self.daemon() as daemon, daemon.client(**self.keys.of("alice")) as alice:
            text = chimera_client.receipt_text(alice.complete(tokens=PROMPT, max_tokens=2, receipt=True))
        self.stated(text)
        # Every bit of a statement is tried in base/statement; here some bytes of a real one.
        for at in range(0, len(text), 23):
            changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1:]
            self.assertIn(self.refused(changed)["code"], ("data_corrupt", "permission_denied"), changed)
        self.assertEqual(self.refused(json.dumps(json.loads(text)))["code"], "data_corrupt")
        self.assertIn("signed by the key", self.refused(text, key="elsewhere.pub")["message"])
        pub = (self.work / "server.pub").read_text().splitlines(keepends=True)
        self.file("".join(line for line in pub if "statement-key" not in line), "old.pub")
        self.assertIn("no statement-key", self.refused(text, key="old.pub")["message"])

    def test_name_every_epoch_with_the_token_where_it_changed(self) -> None:
        endless(self.backbone)
        with self.daemon(self.backbone, modules=self.modules, serve={"max_context": ENDLESS + 500}) as daemon, \
                daemon.client(**self.keys.of("root")) as root, \
                daemon.client(**self.keys.of("alice")) as alice:
            reader = Reader(alice, tokens=PROMPT, max_tokens=ENDLESS, ignore_eos=True, receipt=True)
            for name in "ab":
                reader.more()
                root.revoke(name)
            reader.more(10)
            reader.stop()
            tokens = reader.epochs
            changes = [(epoch, i) for i, epoch in enumerate(tokens) if i == 0 or tokens[i - 1] != epoch]
            stated = self.stated(chimera_client.receipt_text(reader.done))
            epochs = stated["provenance"]["epochs"]
            self.assertEqual(len(changes), 3)
            self.assertEqual([(use["epoch"], use["from"]) for use in epochs], changes)
            self.assertEqual(reader.done["provenance"]["epochs"], epochs)
            self.assertEqual(len({use["composition"] for use in epochs}), 3)
            self.assertEqual(epochs[-1]["composition"], stated["provenance"]["composition"])

    def test_without_a_key_there_are_none(self) -> None:
        with Daemon(self.backbone, modules=self.modules) as daemon, daemon.client() as client:
            with self.assertRaises(chimera_client.FailedPrecondition) as caught:
                client.complete(tokens=PROMPT, max_tokens=1, receipt=True)
            self.assertIn("security.key", caught.exception.hint)
            with self.assertRaises(chimera_client.FailedPrecondition):
                client.revoke("a", proof=True)
            self.assertEqual([m["name"] for m in client.modules()], ["a", "b", "c"])


class Proofs(Statements):
    def test_of_modules_of_weights(self) -> None:
        with self.daemon(self.backbone, modules=self.modules) as daemon, \
                daemon.client(**self.keys.of("root")) as root:
            root.complete(tokens=PROMPT, max_tokens=4, modules={"exclude": ["b"]})
            keys = self.keys.of("root")
            text = run("chimera", "--control", daemon.control_endpoint, "--key", keys["key"], "--server-key",
                       keys["server_key"], "revoke", "a", "--proof").stdout
            shown = run("chimera", "--server-key", keys["server_key"], "receipt", "verify", self.file(text)).stdout
            self.assertRegex(shown, r"released +yes")
            used = self.stated(text)
            answer = root.revoke("b", proof=True)
            unused = self.stated(canonical(answer["proof"]))
            for name, stated in (("a", used), ("b", unused)):
                self.assertEqual((stated["chimera"], stated["module"], stated["version"]),
                                 ("revocation/1", name, "1.0.0"))
                self.assertIs(stated["released"], True)
                self.assertIs(stated["durable"], True)
                memory = stated["memory"]
                self.assertGreater(memory["mapped_bytes"]["before"], memory["bytes"] // 2)
                self.assertEqual(memory["mapped_bytes"]["after"], 0)
                self.assertEqual((memory["mapped_files"]["after"], stated["descriptors"]["after"]), (0, 0))
            self.assertIn(used["last_pass"]["number"], range(1, used["passes"] + 1))
            self.assertIsNone(unused["last_pass"])
            self.assertEqual((unused["epoch"], unused["composition"]), (answer["epoch"], answer["composition"]))
            self.assertEqual(root.info()["composition"], unused["composition"])
            self.assertEqual(root.info()["epoch"], used["epoch"] + 1)
            passes = root.stats()["engine"]["steps"]
            root.complete(tokens=PROMPT, max_tokens=4)
            self.assertGreater(root.stats()["engine"]["steps"], passes)
            with self.assertRaises(chimera_client.NotFound):
                root.revoke("a", proof=True)

    def test_one_that_streams_use_is_released_too(self) -> None:
        endless(self.backbone)
        with self.daemon(self.backbone, modules=self.modules, serve={"max_context": ENDLESS + 500}) as daemon, \
                daemon.client(**self.keys.of("root")) as root, \
                daemon.client(**self.keys.of("alice")) as alice:
            reader = Reader(alice, tokens=PROMPT, max_tokens=ENDLESS, ignore_eos=True)
            reader.more()
            stated = self.stated(canonical(root.revoke("a", proof=True)["proof"]))
            self.assertIs(stated["released"], True)
            self.assertLessEqual(stated["last_pass"]["number"], stated["passes"])
            self.assertEqual(stated["memory"]["mapped_bytes"]["after"], 0)
            reader.stop()

    def test_of_a_library_in_a_process_of_its_own(self) -> None:
        library = BUILD / "modules" / "finance"
        with self.daemon(DEMO / "backbone", modules=[{"path": str(library)}], precision="bf16") as daemon, \
                daemon.client(**self.keys.of("root")) as root:
            root.score(text="The board declared a dividend.")
            stated = self.stated(canonical(root.revoke("finance", proof=True)["proof"]))
            self.assertGreater(stated["descriptors"]["before"], 0)
            self.assertEqual(stated["descriptors"]["after"], 0)
            self.assertIs(stated["released"], True)


if __name__ == "__main__":
    unittest.main()
