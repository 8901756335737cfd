"""What somebody who runs a daemon meets: changes that are refused, rolled back, told and looked up."""
import json
import shutil
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import yaml
from harness import BIN, DEMO, GOLDEN, SLOW, Daemon, chimera_client, endless, run, split, wait_for

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


class Operations(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = Path(tempfile.mkdtemp(prefix="chimera-operations-"))
        cls.parts = split(GOLDEN / "flex_olmo_f32", cls.scratch, a="4", b="5")
        cls.modules = cls.parts / "modules"

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.scratch, ignore_errors=True)

    def daemon(self, **options) -> Daemon:
        return Daemon(self.parts / "backbone", **options)

    def file(self, name: str, value) -> Path:
        path = self.scratch / name
        path.write_text(yaml.safe_dump(value))
        return path

    def test_a_revoked_module_stays_out(self) -> None:
        watched = Path(tempfile.mkdtemp(dir=self.scratch))
        shutil.copytree(self.modules / "a", watched / "a")
        with self.daemon(watch=[str(watched)]) as daemon:
            with daemon.client() as client:
                wait_for(client.modules, "the module of the watched directory")
                client.load(self.modules / "b")
                self.assertEqual([c["action"] for c in client.revoke("a")["changes"]], ["revoke"])
                self.assertIn("action=revoke module=a", daemon.log_text())
                self.assertRaisesRegex(chimera_client.FailedPrecondition, "module a was revoked", client.rollback)
            self.assertEqual(daemon.stop(), 0)
            daemon.start()  # it still lies in the watched directory
            with daemon.client() as client:
                wait_for(lambda: "watch_not_loaded" in daemon.log_text(), "the refusal")
                self.assertEqual([m["name"] for m in client.modules()], ["b"])
                self.assertIn("revoked: a", daemon.cli("epochs").stdout)
                client.load(watched / "a")
                self.assertEqual([m["name"] for m in client.modules()], ["b", "a"])

    def test_every_backbone_keeps_its_composition(self) -> None:
        with self.daemon() as daemon:
            with daemon.client() as client:
                client.load(self.modules / "a", bias=0.5)
                digest = client.info()["composition"]
            self.assertEqual(daemon.stop(), 0)
            own = daemon.config.read_text()
            config = json.loads(own)
            config["backbone"]["path"] = str(GOLDEN / "mixtral_bf16")
            daemon.config.write_text(json.dumps(config))
            daemon.start()
            with daemon.client() as client:
                self.assertEqual(client.modules(), [])
            self.assertEqual(daemon.stop(), 0)
            daemon.config.write_text(own)
            daemon.start()
            with daemon.client() as client:
                self.assertEqual(client.info()["composition"], digest)

    def test_files_of_plan_and_apply(self) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            running = json.loads(daemon.config.read_text())
            wanted = {**running, "threads": 2, "serve": {**running["serve"], "max_context": 4096},
                      "composition": {"modules": [{"path": "modules/a", "enabled": False}]}}
            file = self.file("wanted.yaml", wanted)
            for command in ("plan", "apply"):
                shown = daemon.cli(command, str(file)).stdout
                self.assertIn("serve.max_context: 4096 in the file, 512 runs", shown)
                self.assertIn("threads: 2 in the file, 1 runs", shown)
                self.assertEqual(shown.count("needs a restart"), 2)
            self.assertEqual([m["state"] for m in client.modules()], ["disabled"])

            other = {**running, "backbone": {"path": str(GOLDEN / "mixtral_bf16")}}
            for command in ("plan", "apply"):
                ran = daemon.cli(command, str(self.file("other.yaml", other)), check=False)
                self.assertEqual(ran.returncode, 1)
                self.assertRegex(ran.stdout + ran.stderr, r"other\.yaml:\d+:\d+: backbone\.path: found .*mixtral")
            # The same backbone under another path is the same.
            copy = self.scratch / "copied-backbone"
            shutil.copytree(self.parts / "backbone", copy, dirs_exist_ok=True)
            same = {**wanted, "backbone": {**running["backbone"], "path": str(copy)}}
            daemon.cli("apply", str(self.file("same.yaml", same)))

            slip = self.scratch / "slip.yaml"
            slip.write_text("modules:\n  - path: modules/a\n    bais: 0.5\n")
            ran = daemon.cli("plan", str(slip), check=False)
            self.assertIn(f"{slip}:3:5: modules[0].bais: unknown key (did you mean bias?)", ran.stderr)
            self.assertRaisesRegex(chimera_client.InvalidArgument, r"^composition\.modules\[0\]\.path: found",
                                   client.plan, {"modules": [{"path": "relative"}]})

    def test_disabled_modules_are_shown_and_enabled(self) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            daemon.cli("load", str(self.modules / "a"), "--disabled", "--bias", "0.5")
            again = daemon.cli("load", str(self.modules / "a")).stdout
            self.assertIn("nothing changed", again)
            self.assertIn("disabled  a; `chimera enable NAME` uses it", again)
            self.assertIn("a 1.0.0 bias 0.5 (disabled)", daemon.cli("epochs").stdout)
            self.assertIn("enable a", daemon.cli("enable", "a").stdout)
            self.assertEqual(client.disable("a")["disabled"], ["a"])
            daemon.cli("load", str(self.modules / "a"), "--enabled")
            self.assertEqual([m["state"] for m in client.modules()], ["active"])

    def test_what_was_refused_is_in_the_log(self) -> None:
        with self.daemon(log_level="debug") as daemon, daemon.client() as client:
            self.assertRaises(chimera_client.NotFound, client.unload, "nope")
            self.assertRaises(chimera_client.NotFound, client.load, self.scratch / "nowhere")
            self.assertRaises(chimera_client.InvalidArgument, client.apply, {"modules": 3})
            client.load(self.modules / "a")
            secret = "a text that is nobody's business"
            self.assertRaises(chimera_client.ChimeraError, client.call, "score", text=secret, nope=1)
            client.complete(tokens=PROMPT, max_tokens=2)
            client.close()
            end = time.monotonic() + 60 * SLOW
            while "connection_closed" not in daemon.log_text() and time.monotonic() < end:
                time.sleep(0.02)
            log = daemon.log_text()
            for call in ("unload", "load", "apply"):
                self.assertRegex(log, rf"warning change_refused call={call} ")
            for line in (r"request endpoint=serve call=generate bytes=\d+", r"request_refused endpoint=serve code=invalid_argument", r"connection_opened endpoint=control",
                         r"connection_closed endpoint=serve", r"load_payload module=a ms=[\d.e-]+ result=ok",
                         r"load_probe module=a ", r"state_written epoch=2", r"publication epoch=2 .*result=ok"):
                self.assertRegex(log, r"debug " + line)
            self.assertRegex(log, r"info request_ended endpoint=serve call=generate ms=\S+ client=\S+ result=ok finish=length "
                             rf"prompt_tokens={len(PROMPT)} completion_tokens=2 .* shares=backbone:\S+")
            self.assertNotIn(secret, log)
            self.assertNotIn("nope=1", log)

    def test_the_log_in_json_says_who_took_what(self) -> None:
        with self.daemon(log_format="json") as daemon, daemon.client() as client:
            client.load(self.modules / "a")
            client.complete(tokens=PROMPT, max_tokens=2)
            self.assertRaises(chimera_client.NotFound, client.complete, tokens=PROMPT, modules={"only": ["nobody"]})

            def ended() -> list[dict]:
                lines = [json.loads(line) for line in daemon.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
                self.assertTrue(all({"time", "level", "event"} <= set(line) for line in lines))
                return [line for line in lines if line["event"] == "request_ended"]

            wait_for(lambda: len(ended()) == 2, "both requests in the log")
            good, bad = ended()
            self.assertEqual({key: good[key] for key in ("level", "call", "result", "finish", "prompt_tokens", "completion_tokens")},
                             {"level": "info", "call": "generate", "result": "ok", "finish": "length",
                              "prompt_tokens": len(PROMPT), "completion_tokens": 2})
            self.assertIn("a:", good["shares"])
            self.assertEqual((bad["result"], bad["finish"], bad["completion_tokens"]), ("not_found", "", 0))

    def test_logprobs_without_streaming(self) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            stream = list(client.generate(tokens=PROMPT, max_tokens=5, temperature=0, ignore_eos=True, logprobs=True))
            whole = client.complete(tokens=PROMPT, max_tokens=5, temperature=0, ignore_eos=True, logprobs=True)
            single = struct.Struct("f")  # events widen the float32 to a double
            self.assertEqual([single.pack(x) for x in whole["logprobs"]],
                             [single.pack(token.logprob) for token in stream])
            self.assertEqual(whole["tokens"], [token.token for token in stream])
            self.assertNotIn("logprobs", client.complete(tokens=PROMPT, max_tokens=5))

    def test_a_request_is_ended_from_elsewhere(self) -> None:
        # Of the demo, and not as a stream: it lasts until it is ended, and nothing waits unread.
        backbone = self.scratch / "demo"
        shutil.copytree(DEMO / "backbone", backbone)
        endless(backbone)
        with Daemon(backbone, serve={"max_context": 20_000}) as daemon, daemon.client() as client:
            client.send("generate", tokens=PROMPT, max_tokens=19_000, ignore_eos=True, stream=False, id="long one")
            wait_for(lambda: client.stats()["engine"]["live"] == 1, "the request has begun")
            listed = json.loads(daemon.cli("--json", "requests").stdout.splitlines()[0])
            self.assertEqual((listed["id"], listed["call"], listed["endpoint"]), ("long one", "generate", "serve"))
            self.assertIn("cancelled 1 request", daemon.cli("cancel", "long one").stdout)
            done = client.receive("generate", "long one", timeout=60 * SLOW)
            self.assertEqual(done.body["finish_reason"], "cancelled")
            self.assertEqual(daemon.cli("cancel", "long one", check=False).returncode, 1)
            with daemon.client() as other:
                self.assertEqual(other.cancel_any("long one"), 0)
                self.assertEqual(other.requests(), [])

    def test_routing_counts_from_a_reset(self) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            def tokens() -> int:
                return client.routing()["layers"][0]["tokens"]

            client.score(tokens=PROMPT)
            end = time.monotonic() + 60 * SLOW
            while not (client.routing()["layers"] and tokens()) and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.3)  # the counters are copied for readers every 100 ms at most
            first, since = tokens(), client.routing()["since"]
            self.assertEqual(client.routing(reset=True)["layers"][0]["tokens"], first)
            self.assertEqual(tokens(), 0)
            self.assertGreaterEqual(client.routing()["since"], since)
            client.score(tokens=PROMPT[:4])
            while tokens() == 0 and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.3)
            self.assertEqual(tokens(), first // 2)

    def test_lost_output_of_the_daemon_and_offline_work(self) -> None:
        for command in ([BIN / "chimerad", "--config", "CONFIG", "--check"],
                        [BIN / "chimera-module", "inspect", self.modules / "a"],
                        [BIN / "chimera-module", "--json", "verify", self.modules / "a"],
                        [BIN / "chimera-module", "fingerprint", self.parts / "backbone"],
                        [BIN / "chimera-plugin-check", "--list"]):
            with self.daemon(start=False) as daemon, open("/dev/full", "w") as full:
                words = [str(word).replace("CONFIG", str(daemon.config)) for word in command]
                fine = run(*words)
                self.assertTrue(fine.stdout)
                lost = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60 * SLOW)
                self.assertEqual(lost.returncode, 1, words)
                self.assertIn("standard output: ", lost.stderr)


if __name__ == "__main__":
    unittest.main()
