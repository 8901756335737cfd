"""Canaries: a part of the new requests tries a module, and nobody else notices; bounds abort one."""
from __future__ import annotations

import json
import pathlib
import shutil
import tempfile
import unittest
from typing import Any

import numpy as np

from harness import DEMO, ENDLESS, GOLDEN, Daemon, Reader, chimera_client, endless, run, split, wait_for

TEXT = "The tenant shall pay the rent on the first day of each month, and the landlord shall repair the roof. "
VERSION = next(line.split()[1] for line in (DEMO / "legal" / "module.yaml").read_text().splitlines()
               if line.startswith("version:"))
REQUEST = {"prompt": "The parties agree", "max_tokens": 12, "temperature": 0, "ignore_eos": True}


def planted(out: pathlib.Path) -> pathlib.Path:
    """The legal module with the numbers of its experts in reverse order and eight times as large: it is
    let in, being finite and repeatable, and knows nothing."""
    shutil.copytree(DEMO / "legal", out, copy_function=shutil.copyfile)
    weights = out / "weights.safetensors"
    blob = bytearray(weights.read_bytes())
    start = 8 + int.from_bytes(blob[:8], "little")
    for name, tensor in json.loads(blob[8:start]).items():
        if ".experts." not in name:
            continue
        assert tensor["dtype"] == "BF16", tensor
        begin, end = (start + at for at in tensor["data_offsets"])
        numbers = np.frombuffer(blob[begin:end], "<u2")[::-1]
        eightfold = 3 << 7  # in the exponent of a BF16
        blob[begin:end] = np.where(numbers & 0x7F80, numbers + eightfold, numbers).astype("<u2").tobytes()
    weights.write_bytes(blob)
    lines = [line for line in (out / "module.yaml").read_text().splitlines() if "max_bits_per_byte" not in line]
    text = "\n".join(lines).replace(f"version: {VERSION}", "version: 6.6.6")
    (out / "module.yaml").write_text(text + "\n")
    run("chimera", "module", "seal", str(out), "--backbone", str(DEMO / "backbone"))
    return out


class Canary(unittest.TestCase):
    def ask(self, client: Any, request_id: str, **fields: Any) -> dict[str, Any]:
        body = {"id": request_id, "call": "generate", "stream": False, **REQUEST, **fields}
        client.connection("generate").send(request_id, {k: v for k, v in body.items() if v is not None})
        return client.receive("generate", request_id).body

    def refused(self, expected: str, call: Any, *args: Any) -> None:
        with self.assertRaises(chimera_client.ChimeraError) as raised:
            call(*args)
        self.assertEqual(raised.exception.code, "failed_precondition", raised.exception)
        self.assertIn(expected, str(raised.exception))

    def test_a_part_of_the_requests_tries_it_until_it_is_promoted(self) -> None:
        with Daemon(DEMO / "backbone") as daemon, daemon.client() as client:
            plain = self.ask(client, "plain")["tokens"]
            before = client.epochs()
            began = client.load(DEMO / "legal", canary=0.5)
            self.assertEqual((began["canary"], began["changes"][0]["module"]), (0.5, "legal"))
            self.assertGreater(began["epoch"], before["epoch"])
            now = client.epochs()
            self.assertEqual((now["epoch"], now["history"]), (before["epoch"], before["history"]))
            self.assertEqual([e["epoch"] for e in now["live"] if e["canary"]], [began["epoch"]])
            self.assertEqual([m["state"] for m in client.modules()], ["canary"])

            def sides() -> list[bool]:
                out = []
                for i in range(60):
                    done = self.ask(client, f"r{i}")
                    provenance = done["provenance"]
                    tries = provenance["epoch"] == began["epoch"]
                    self.assertEqual("legal" in provenance["modules"], tries)
                    self.assertEqual(provenance["composition"] == began["composition"], tries)
                    if not tries:
                        self.assertEqual(done["tokens"], plain)
                    out.append(tries)
                return out

            first = sides()
            self.assertEqual(set(first), {True, False})  # how many: daemon/registry/canary_test.cc
            self.assertEqual(sides(), first)
            on_it = f"r{first.index(True)}"
            tried = self.ask(client, on_it, max_tokens=200)["tokens"]
            self.ask(client, on_it, modules={"only": ["legal"]})
            with self.assertRaisesRegex(Exception, "not loaded"):
                self.ask(client, f"r{first.index(False)}", modules={"only": ["legal"]})
            for refused in ((client.load, DEMO / "bio"), (client.unload, "legal"), (client.rollback,)):
                self.refused("canary", *refused)
            plan = client.plan({"modules": []})
            self.assertIn("canary", plan["refusals"][0]["message"])
            told = client.canary()["canary"]
            self.assertEqual(told["on_canary"]["requests"] + told["on_current"]["requests"], 122)
            self.assertEqual(told["on_canary"]["failed"], 0)

            connection = client.connection("generate")
            connection.send(on_it, {"id": on_it, "call": "generate", **REQUEST, "max_tokens": 200})
            tokens, epochs = [], []
            promoted = None
            while True:
                event = client.receive("generate", on_it)
                if event.final:
                    break
                tokens.append(event.body["token"])
                epochs.append(event.body["epoch"])
                if promoted is None:
                    promoted = client.promote()
            self.assertEqual(tokens, tried)
            self.assertEqual(set(epochs) - {began["epoch"], promoted["epoch"]}, set())
            self.assertEqual(promoted["composition"], began["composition"])
            self.assertGreater(promoted["epoch"], began["epoch"])
            ended = client.canary()
            self.assertNotIn("canary", ended)
            self.assertEqual((ended["last"]["outcome"], ended["last"]["module"]), ("promoted", "legal"))
            for i in range(6):
                self.assertEqual(self.ask(client, f"r{i}")["provenance"]["epoch"], promoted["epoch"])
            self.assertEqual([m["state"] for m in client.modules()], ["active"])
            self.refused("canary: found none", client.promote)
            self.refused("canary: found none", client.abort)
            daemon.kill()
            daemon.start()
            with daemon.client() as again:
                self.assertEqual([m["name"] for m in again.modules()], ["legal"])

    def test_an_abort_a_revocation_and_a_restart_leave_nothing_of_it(self) -> None:
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="chimera-canary-"))
        self.addCleanup(shutil.rmtree, scratch, ignore_errors=True)
        parts = split(GOLDEN / "flex_olmo_f32", scratch, legal="4", bio="5", finance="6")
        endless(parts / "backbone")
        modules = parts / "modules"
        request = {"prompt": None, "tokens": [3, 5, 7], "max_tokens": 12}
        with Daemon(parts / "backbone", modules=[{"path": str(modules / "bio")}],
                    serve={"max_context": ENDLESS}) as daemon, daemon.client() as client:
            plain = self.ask(client, "plain", **request)["tokens"]
            epoch = client.epochs()["epoch"]
            last = 0
            for ends in ("abort", "revoke it", "revoke another"):
                with self.subTest(ends), daemon.client() as own:
                    began = client.load(modules / "legal", canary=1)
                    self.assertGreater(began["epoch"], last)
                    last = began["epoch"]
                    self.refused("canary", client.load, modules / "finance")
                    stream = Reader(own, tokens=[3, 5, 7], max_tokens=ENDLESS - 100, temperature=0, ignore_eos=True)
                    self.assertEqual(set(stream.epochs), {last})
                    if ends == "abort":
                        self.assertEqual(client.abort()["epoch"], epoch)
                    elif ends == "revoke it":
                        epoch = client.revoke("legal")["epoch"]
                    else:
                        epoch = client.revoke("bio")["epoch"]
                        plain = self.ask(client, "plain", **request)["tokens"]
                    wait_for(lambda: epoch in stream.epochs, "a token of the current epoch")
                    stream.more()
                    stream.stop()
                    moved = stream.epochs.index(epoch)
                    self.assertEqual(set(stream.epochs[:moved]), {last})
                    self.assertEqual(set(stream.epochs[moved:]), {epoch})
                    self.assertEqual(client.canary()["last"]["outcome"], "aborted")
                    wait_for(lambda: "legal" not in [m["name"] for m in client.modules()], "it is gone")
                    self.assertEqual(self.ask(client, "again", **request)["tokens"], plain)
                    self.assertEqual(client.epochs()["epoch"], epoch)
            last = client.load(modules / "legal", canary=1)["epoch"]
            self.assertEqual(self.ask(client, "on it", **request)["provenance"]["epoch"], last)
            daemon.kill()
            daemon.start()
            with daemon.client() as again:
                self.assertNotIn("canary", again.canary())
                self.assertNotIn("legal", [m["name"] for m in again.modules()])
                self.assertGreater(again.epochs()["epoch"], last)
                self.assertEqual(self.ask(again, "again", **request)["tokens"], plain)

    def test_a_planted_module_is_aborted_by_its_bound(self) -> None:
        with tempfile.TemporaryDirectory() as scratch, \
                Daemon(DEMO / "backbone", modules=[{"path": str(DEMO / "legal")}],
                       canary={"after": 4, "bits_per_byte": 2.0, "error_rate": 0.5}) as daemon, \
                daemon.client() as client:
            good = client.score(TEXT).bits_per_byte
            self.assertLess(good, 2.0)
            epochs = client.epochs()
            command = ["chimera", "--endpoint", daemon.serve_endpoint, "--control", daemon.control_endpoint]
            shown = run(*command, "load", str(planted(pathlib.Path(scratch) / "legal")), "--canary", "50%").stdout
            self.assertIn("50.0 % of new requests", shown)
            # Generations have no bits per byte, so that no bound counts while the sides of ids are looked for.
            sides: dict[int, str] = {}
            for i in range(100):
                epoch = self.ask(client, f"s{i}", max_tokens=1)["provenance"]["epoch"]
                sides[epoch] = f"s{i}"
                if len(sides) == 2:
                    break
            on_current, on_canary = sides[min(sides)], sides[max(sides)]
            self.assertEqual(client.score(TEXT, id=on_current).bits_per_byte, good)
            bad = client.score(TEXT, id=on_canary).bits_per_byte

            def aborted() -> bool:
                client.score(TEXT, id=on_canary)
                return "last" in client.canary()

            wait_for(aborted, "the bound aborts the canary")
            last = client.canary()["last"]
            self.assertEqual((last["outcome"], last["version"]), ("aborted", "6.6.6"))
            self.assertIn("bits per byte: found", last["reason"])
            self.assertGreaterEqual(last["on_canary"]["requests"], 4)
            self.assertGreater(last["on_canary"]["bits_per_byte"], 2.0)
            self.assertAlmostEqual(last["on_current"]["bits_per_byte"], good, places=9)
            self.assertGreater(bad, 2.0)
            for name in (on_current, on_canary):
                self.assertEqual(client.score(TEXT, id=name).bits_per_byte, good)
            self.assertEqual(client.epochs()["history"], epochs["history"])
            self.assertEqual([m["version"] for m in client.modules() if m["state"] == "active"], [VERSION])
            shown = run(*command, "canary").stdout
            self.assertIn("no canary", shown)
            self.assertIn("aborted", shown)
            self.assertIn("bits per byte: found", shown)

    def test_one_that_is_too_slow_is_aborted_too(self) -> None:
        # No token takes so little: the bound is beyond what any module can keep.
        with Daemon(DEMO / "backbone", canary={"after": 2, "ms_per_token": 1e-6}) as daemon, daemon.client() as client:
            for fields in ({"enabled": False}, {"in_flight": "restart"}):
                with self.assertRaisesRegex(chimera_client.ChimeraError, "load.canary"):
                    client.load(DEMO / "legal", canary=0.5, **fields)
            client.load(DEMO / "legal", enabled=False)
            self.refused("disabled", lambda: client.load(DEMO / "legal", canary=0.5, name="legal"))
            client.unload("legal")
            client.load(DEMO / "legal", canary=1)

            def aborted() -> bool:
                self.ask(client, "r")
                return "last" in client.canary()

            wait_for(aborted, "the bound aborts the canary")
            self.assertIn("ms per token: found", client.canary()["last"]["reason"])
            wait_for(lambda: client.modules() == [], "it is gone")


if __name__ == "__main__":
    unittest.main()
