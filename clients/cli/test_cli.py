"""`chimera` against a scripted daemon: what it sends, prints and returns.

usage: test_cli.py PATH_OF_CHIMERA
"""

import json
import math
import os
import pty
import signal
import subprocess
import threading
import time
from pathlib import Path

import scripted
from scripted import GENERATED, INFO, done, provenance


OUT_OF_RANGE = [("--max-tokens", "0"), ("--max-tokens", "-3"), ("--temperature", "nan"), ("--temperature", "-1"),
                ("--top-p", "1.5"), ("--min-p", "inf"), ("--seed", "-1"), ("--repetition-penalty", "0"),
                ("--frequency-penalty", "2.5"), ("--presence-penalty", "-3"), ("--logit-bias", "7"),
                ("--logit-bias", "-1=3"), ("--top-logprobs", "21")]


class CliTest(scripted.Scripted):
    def test_generate_streams_and_sends_its_options(self):
        def script(request):
            yield {"event": "token", "text": " a", "token": 1, "epoch": 3}
            yield {"event": "token", "text": "é", "token": 2, "epoch": 3}
            yield GENERATED

        self.daemon(script)
        ran = self.run_cli("generate", "once upon", "--max-tokens", "2", "--temperature=0", "--seed", "7",
                           "--modules", "legal,bio", "--exclude", "finance", "--bias", "legal=-0.5",
                           "--adapters", "style")
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (0, " aé\n", ""))
        sent = self.peer.requests[0]
        self.assertEqual((sent["prompt"], sent["max_tokens"], sent["temperature"], sent["seed"]),
                         ("once upon", 2, 0.0, 7))
        self.assertEqual(sent["modules"], {"only": ["legal", "bio"], "exclude": ["finance"],
                                           "bias": {"legal": -0.5}, "adapters": ["style"]})

    def test_a_bias_out_of_range_is_told_of_its_token(self):
        self.daemon(lambda r: [GENERATED])
        ran = self.run_cli("generate", "x", "--logit-bias", "7=101")
        self.assertEqual(ran.returncode, 2)
        self.assertIn("--logit-bias.7: 101", ran.stderr)
        self.assertEqual(self.peer.requests, [])

    def test_generate_prints_alternatives(self):
        top = [{"token": 1, "text": "a", "logprob": -0.5}, {"token": 2, "text": "b", "logprob": -2.0}]
        self.daemon(lambda r: [{"event": "token", "text": "a", "token": 1, "epoch": 3, "logprob": -0.5,
                                "top_logprobs": top}, GENERATED])
        ran = self.run_cli("--json", "generate", "x", "--top-logprobs", "2", "--logit-bias", "5=-100",
                           "--logit-bias", "7=2.5", "--frequency-penalty", "0.5", "--presence-penalty=-1")
        self.assertEqual(ran.stderr, "")
        self.assertEqual(json.loads(ran.stdout.splitlines()[0])["top_logprobs"], top)
        sent = self.peer.requests[0]
        self.assertEqual((sent["top_logprobs"], sent["logprobs"]), (2, True))
        self.assertEqual(sent["logit_bias"], {"5": -100.0, "7": 2.5})
        self.assertEqual((sent["frequency_penalty"], sent["presence_penalty"]), (0.5, -1.0))

    def test_shares_mark_who_answered(self):
        def token(text, **shares):
            return {"event": "token", "text": text, "token": 1, "epoch": 3, "shares": shares}

        tokens = [token(" the", backbone=0.75, legal=0.25), token(" court", backbone=0.25, legal=0.75),
                  token(" held", backbone=0.0, legal=1.0), token("", backbone=0.5, bio=0.5)]
        self.daemon(lambda r: [*tokens, GENERATED])
        ran = self.run_cli("generate", "x", "--shares")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(ran.stdout, "[backbone] the[legal] court held[backbone]\n\n"
                         "[backbone]  2 of 4 tokens\n[legal]     2 of 4 tokens\n")
        self.assertIs(self.peer.requests[0]["shares"], True)
        ran = self.run_cli("--json", "generate", "x", "--shares")
        self.assertEqual(json.loads(ran.stdout.splitlines()[1])["shares"], {"backbone": 0.25, "legal": 0.75})
        ran = self.run_cli("generate", "x", "--shares", "--no-stream")
        self.assertEqual((ran.returncode, ran.stdout), (2, ""))
        self.assertIn("--shares and --no-stream", ran.stderr)

    def test_top_tells_what_happened_between_two_looks(self):
        looks = iter([(10, 1.0, 100), (30, 0.5, 140)])  # tokens of the layer, the backbone's share, tokens of all

        def script(request):
            if request["call"] == "stats":
                self.look = next(looks)
                yield done(epoch=3, composition="sha256:1", engine={"generated_tokens": self.look[2], "live": 1})
            elif request["call"] == "modules":
                yield done(modules=[{"name": "legal", "version": "1.2.0", "state": "loaded", "bias": 0.5,
                                     "resident_bytes": 4096}])
            else:
                shares = {"backbone": self.look[1], "legal": 1 - self.look[1]}
                yield done(layers=[{"layer": 0, "tokens": self.look[0],
                                    "modules": {name: {"share": share, "experts": []} for name, share in shares.items()}}])

        self.daemon(script)
        ran = self.run_cli("--json", "top", "--once", "--interval", "0.05")
        self.assertEqual(ran.stderr, "")
        top = json.loads(ran.stdout)
        # Of 20 tokens' mass 15 went to legal: it had none of the first 10, half of the 30.
        self.assertEqual([(m["name"], m["share_now"]) for m in top["modules"]], [("backbone", 0.25), ("legal", 0.75)])
        self.assertAlmostEqual(top["tokens_per_second"] * top["seconds"], 40)
        self.assertEqual((top["epoch"], top["live"], top["modules"][1]["resident_bytes"]), (3, 1, 4096))

    def test_no_modules_means_the_backbone_alone(self):
        self.daemon(lambda r: [GENERATED])
        self.assertEqual(self.run_cli("generate", "x", "--no-modules").returncode, 0)
        self.assertEqual(self.peer.requests[0]["modules"], {"only": []})

    def test_json_prints_one_object_per_line(self):
        self.daemon(lambda r: [{"event": "token", "text": "a", "token": 1, "epoch": 3}, GENERATED])
        ran = self.run_cli("--json", "generate", "x")
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        self.assertEqual([line["event"] for line in lines], ["token", "done"])

    def test_no_stream_prints_the_whole(self):
        self.daemon(lambda r: [{**GENERATED, "text": "whole", "tokens": [1, 2]}])
        ran = self.run_cli("generate", "x", "--no-stream")
        self.assertEqual(ran.stdout, "whole\n")
        self.assertIs(self.peer.requests[0]["stream"], False)

    def test_prompt_from_standard_input(self):
        self.daemon(lambda r: [GENERATED])
        self.run_cli("generate", "-", stdin="from a pipe")
        self.assertEqual(self.peer.requests[0]["prompt"], "from a pipe")

    def test_errors_go_to_standard_error_with_status_1(self):
        self.daemon(lambda r: [{"event": "error", "code": "not_found",
                                "message": "module: \"x\" (expected a loaded one)\x1b[31m", "hint": "see modules"}])
        ran = self.run_cli("unload", "x")
        self.assertEqual((ran.returncode, ran.stdout), (1, ""))
        self.assertEqual(ran.stderr, "chimera: module: \"x\" (expected a loaded one)?[31m. see modules\n")

    def test_ctrl_c_cancels_and_exits_130(self):
        first = []

        def script(request):
            if request["call"] == "generate":
                first.append(request["id"])
                yield {"event": "token", "text": "a", "token": 1, "epoch": 3}
            if request["call"] == "cancel":
                yield done(target=request["target"], cancelled=True)
                yield {**GENERATED, "finish_reason": "cancelled", "id": first[0]}

        self.daemon(script)
        process = subprocess.Popen(self.command("generate", "x"), stdout=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.read(1), "a")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(self.peer.requests[1]["target"], first[0])

    def test_no_daemon_is_told_within_two_seconds(self):
        self.daemon(lambda r: [])
        start = time.monotonic()
        ran = subprocess.run([scripted.CHIMERA, "--endpoint", "ipc:///nonexistent/s", "health"], capture_output=True,
                             text=True, timeout=120)
        self.assertLess(time.monotonic() - start, 20)  # the promise, on an idle machine: 2
        self.assertEqual(ran.returncode, 75)
        self.assertIn("ipc:///nonexistent/s", ran.stderr)
        self.assertIn("chimerad --config", ran.stderr)

    def test_a_daemon_that_dies_is_noticed(self):
        self.daemon(lambda r: [{"event": "token", "text": "a", "token": 1, "epoch": 3}])
        process = subprocess.Popen(self.command("generate", "x"), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        process.stdout.read(1)
        self.peer.stop()
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75)
        self.assertIn("was lost", err)

    def test_embeddings_one_and_several(self):
        vectors = {"a": [3.0, 4.0], "b": [-4.0, 3.0], "c\nd": [6.0, 8.0]}

        def script(request):
            yield done(finish_reason="embedded", embedding=vectors[request["text"]], usage={"prompt_tokens": 7},
                       provenance=provenance(legal=0.25))

        self.daemon(script)
        ran = self.run_cli("embed", "a", "--pooling", "last", "--no-normalize", "--modules", "legal")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        for shown in ("3.0000 4.0000", "5.0000", "legal 25.0 %, backbone 75.0 %"):
            self.assertIn(shown, ran.stdout)
        asked = self.peer.requests[0]
        self.assertEqual((asked["pooling"], asked["normalize"], asked["modules"]), ("last", False, {"only": ["legal"]}))
        table = [line.split() for line in self.run_cli("embed", *vectors).stdout.splitlines()]
        self.assertEqual(table, [["text", "tokens", "1", "2", "3"], ["1", "a", "7", "1.000", "0.000", "1.000"],
                                 ["2", "b", "7", "0.000", "1.000", "0.000"],
                                 ["3", "c", "d", "7", "1.000", "0.000", "1.000"]])
        lines = self.run_cli("--json", "embed", "-", "b", stdin="a").stdout.splitlines()
        self.assertEqual([json.loads(line)["embedding"] for line in lines], [vectors["a"], vectors["b"]])
        before = len(self.peer.requests)
        for wrong in (["--pooling", "cls"], ["--dimensions", "3"]):
            self.assertEqual(self.run_cli("embed", "a", *wrong).returncode, 2, wrong)
        self.assertEqual(len(self.peer.requests), before)

    def test_score_covers_every_byte_of_documents_short_and_long(self):
        """Two nats per token and one token per two bytes: one nat per byte, however it is cut."""
        scored = []

        def script(request):
            if request["call"] == "info":
                yield INFO
            elif request["call"] == "tokenize":
                yield done(tokens=[7] * math.ceil(len(request["text"].encode()) / 2))
            else:
                tokens = request.get("tokens") or [0] + [7] * math.ceil(len(request["text"].encode()) / 2)
                scored.append(len(tokens))
                n = len(tokens) - 1
                yield done(bits_per_byte=None, nats=2.0 * n, count=n, logprobs=[-2.0] * n,
                           provenance=provenance(legal=0.25))

        self.daemon(script)
        lengths = [2, 10, 14, 16, 30, 400, 4000]
        lines = "".join(json.dumps({"text": "x" * n, "source": "s"}) + "\n" for n in lengths)
        ran = self.run_cli("--json", "score", self.path("d.jsonl", lines), "--modules", "legal")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        result = json.loads(ran.stdout)
        self.assertEqual((result["bytes"], result["documents"]), (sum(lengths), len(lengths)))
        self.assertEqual(result["tokens"], sum(lengths) // 2)
        self.assertAlmostEqual(result["bits_per_byte"], 1 / math.log(2), places=9)
        self.assertAlmostEqual(result["modules"]["legal"]["share"], 0.25)
        self.assertAlmostEqual(result["backbone"]["share"], 0.75)
        self.assertLessEqual(max(scored), 16)
        self.assertTrue(all(r["modules"] == {"only": ["legal"]} for r in self.peer.requests if r["call"] == "score"))

        limited = self.run_cli("--json", "score", self.path("d.jsonl", lines), "--limit-bytes", "100")
        self.assertEqual(json.loads(limited.stdout)["bytes"], 100)

        compressed = Path(self.directory.name, "d.jsonl.zst")
        subprocess.run(["zstd", "-q", "-o", compressed, Path(self.directory.name, "d.jsonl")], check=True)
        ran = self.run_cli("--json", "score", str(compressed))
        self.assertEqual(json.loads(ran.stdout)["bytes"], sum(lengths))
        twice = Path(self.directory.name, "twice.jsonl.zst")  # as `cat a.zst b.zst` makes it
        twice.write_bytes(2 * compressed.read_bytes())
        ran = self.run_cli("--json", "score", str(twice))
        self.assertEqual(json.loads(ran.stdout)["bytes"], 2 * sum(lengths))
        cut = Path(self.directory.name, "cut.jsonl.zst")
        cut.write_bytes(compressed.read_bytes()[:-1])
        ran = self.run_cli("score", str(cut))
        self.assertEqual(ran.returncode, 1)
        self.assertIn("cut.jsonl.zst: it ends in the middle of a frame", ran.stderr)

        ran = self.run_cli("--json", "score", "-", stdin="é" * 1000)
        self.assertEqual(json.loads(ran.stdout)["bytes"], 2000)
        human = self.run_cli("score", self.path("t.txt", "y" * 50))
        self.assertIn("bits per byte  1.4427", human.stdout)
        self.assertIn("legal", human.stdout)

    def test_score_does_not_depend_on_the_order_of_answers(self):
        nats = [0.1 * 1.7 ** i for i in range(12)]
        self.assertNotEqual(sum(nats), sum(reversed(nats)))
        order = []

        def script(request):
            if request["call"] == "info":
                yield INFO
            else:
                yield done(bits_per_byte=None, nats=order.pop(), count=3, logprobs=[-1.0] * 3,
                           provenance=provenance())

        self.daemon(script)
        path = self.path("d.jsonl", '{"text": "short"}\n' * len(nats))
        found = set()
        for values in (nats, nats[::-1], nats[6:] + nats[:6]):
            order[:] = values
            ran = self.run_cli("--json", "score", path)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            found.add(json.loads(ran.stdout)["nats"])
        self.assertEqual(len(found), 1, found)

    def test_score_refuses_what_is_no_text(self):
        self.daemon(lambda r: [INFO])
        Path(self.directory.name, "bad").write_bytes(b"abc\xff")
        for name, text in (("empty", ""), ("d.jsonl", "{\"txt\": 1}\n")):
            self.path(name, text)
        Path(self.directory.name, "e.jsonl.zst").write_bytes(b"no zstd")
        Path(self.directory.name, "none.jsonl.zst").write_bytes(b"")
        # A line that the size of its file does not announce.
        bomb = subprocess.run(["zstd", "-qc"], input=bytes(65 << 20), stdout=subprocess.PIPE, check=True)
        Path(self.directory.name, "bomb.jsonl.zst").write_bytes(bomb.stdout)
        for name, what in (("bad", "UTF-8"), ("empty", ""), ("d.jsonl", "d.jsonl:1"), ("e.jsonl.zst", "a zstd file"),
                           ("none.jsonl.zst", "a zstd file"),
                           ("bomb.jsonl.zst", "more than 64 MiB"), ("missing", "No such"), (".", "directory")):
            ran = self.run_cli("score", f"{self.directory.name}/{name}")
            self.assertEqual(ran.returncode, 1, name)
            self.assertTrue(ran.stderr.startswith("chimera: "), ran.stderr)
            self.assertIn(what, ran.stderr)

    def test_apply_makes_paths_absolute_from_the_file(self):
        self.daemon(lambda r: [done(epoch=5, composition="sha256:ab", changes=[
            {"action": "load", "module": "legal", "detail": "1.0.0"}])])
        block = "top_k: 2\nmodules:\n  - path: mods/legal\n    bias: 0.2\n  - path: /abs/bio\n    enabled: false\n"
        expected = {"top_k": 2, "modules": [{"path": f"{self.directory.name}/mods/legal", "bias": 0.2},
                                            {"path": "/abs/bio", "enabled": False}]}
        ran = self.run_cli("apply", self.path("c.yaml", block), "--in-flight", "restart")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("epoch 5", ran.stdout)
        whole = "chimera: deployment/1\nbackbone: {path: b}\ncomposition:\n" + "".join(
            "  " + line + "\n" for line in block.splitlines())
        self.assertEqual(self.run_cli("apply", self.path("d.yaml", whole)).returncode, 0)
        self.assertEqual(self.peer.requests[0]["composition"], expected)
        self.assertEqual(self.peer.requests[1]["deployment"],
                         {"chimera": "deployment/1", "backbone": {"path": "b"}, "composition": expected})
        self.assertEqual(self.peer.requests[1]["directory"], self.directory.name)
        self.assertEqual([r["in_flight"] for r in self.peer.requests], ["restart", "pin"])
        for bad in ("a: [", "a: 1\na: 2\n", "- 1\n", "a: &x [1]\nb: " + "[*x, " * 40 + "1" + "]" * 40):
            ran = self.run_cli("apply", self.path("bad.yaml", bad))
            self.assertEqual(ran.returncode, 1, bad)
            self.assertRegex(ran.stderr, r"bad\.yaml:\d+:\d+: ")

    def test_a_file_that_lists_no_modules_is_refused(self):
        self.daemon(lambda r: [done(epoch=5, composition="sha256:ab", changes=[])])
        for text in ("top_k: 2\n", "backbone: {path: b}\n", "backbone: {path: b}\ncomposition: {top_k: 2}\n",
                     "composition: {}\n", "chimera: deployment/1\n"):
            for command in ("plan", "apply"):
                ran = self.run_cli(command, self.path("c.yaml", text))
                self.assertEqual(ran.returncode, 1, text)
                self.assertRegex(ran.stderr, r"c\.yaml:\d+:\d+: no (composition\.)?modules")
        self.assertEqual(self.peer.requests, [])
        self.assertEqual(self.run_cli("apply", self.path("c.yaml", "modules: []\n")).returncode, 0)

    def test_problems_of_a_composition_are_told_by_line_and_column(self):
        message = "composition.modules[1].bais: unknown key (did you mean bias?)\ncomposition.modules[0].path: missing"
        self.daemon(lambda r: [{"event": "error", "code": "invalid_argument", "message": message, "hint": ""}])
        block = "modules:\n  - bias: 1\n  - path: /m\n    bais: 0.5\n"
        ran = self.run_cli("apply", self.path("c.yaml", block))
        self.assertIn("c.yaml:4:5: modules[1].bais: unknown key", ran.stderr)
        self.assertIn("c.yaml:2:5: modules[0].path: missing", ran.stderr)
        whole = "backbone: {path: b}\ncomposition:\n" + "".join("  " + line + "\n" for line in block.splitlines())
        ran = self.run_cli("plan", self.path("d.yaml", whole))
        self.assertIn("d.yaml:6:7: composition.modules[1].bais: unknown key", ran.stderr)

    def test_what_needs_a_restart_is_told(self):
        note = {"key": "serve.max_context", "wanted": "4096", "running": "2048"}
        self.daemon(lambda r: [done(epoch=5, composition="sha256:ab", changes=[], accepted=True, refusals=[],
                                    memory_bytes=0, needs_restart=[note])])
        for command in ("plan", "apply"):
            ran = self.run_cli(command, self.path("c.yaml", "modules: []\n"))
            self.assertIn("serve.max_context: 4096 in the file, 2048 runs", ran.stdout)

    def test_nothing_changed_is_said_and_how_to_enable(self):
        self.daemon(lambda r: [done(epoch=5, composition="sha256:ab", changes=[], disabled=["legal"])])
        ran = self.run_cli("load", "/m")
        self.assertIn("nothing changed\n", ran.stdout)
        self.assertIn("disabled  legal; `chimera enable NAME` uses it", ran.stdout)

    def test_tokens_there_and_back(self):
        self.daemon(lambda r: [done(tokens=[17, 250]) if r["call"] == "tokenize" else done(text="Hi ")])
        self.assertEqual(self.run_cli("tokenize", "Hi").stdout, "17 250\n")
        sent = self.peer.requests[-1]
        self.assertEqual((sent["text"], sent["add_special"], sent["match_special"]), ("Hi", False, False))
        self.run_cli("tokenize", "-", "--add-special", "--match-special", stdin="a\nb")
        sent = self.peer.requests[-1]
        self.assertEqual((sent["text"], sent["add_special"], sent["match_special"]), ("a\nb", True, True))
        self.assertEqual(self.run_cli("detokenize", "17", "250").stdout, "Hi \n")
        self.assertEqual(self.peer.requests[-1]["tokens"], [17, 250])
        self.run_cli("detokenize", "-", "--skip-special", stdin="[17, 250]\n3 4\n")
        self.assertEqual(self.peer.requests[-1]["tokens"], [17, 250, 3, 4])
        self.assertIs(self.peer.requests[-1]["skip_special"], True)
        for wrong in ("x", "-1", "1.5", "99999999999"):
            self.assertEqual(self.run_cli("detokenize", wrong).returncode, 2, wrong)

    def test_requests_and_cancel(self):
        ended = []

        def script(request):
            if request["call"] == "requests":
                yield done(total=1, requests=[{"id": "c1-1", "call": "generate", "endpoint": "serve", "seconds": 2.5}])
            else:
                ended.append(request["target"])
                yield done(target=request["target"], cancelled=int(request["target"] == "c1-1"))

        self.daemon(script)
        self.assertRegex(self.run_cli("requests").stdout, r"c1-1 +generate +serve +2\.5")
        self.assertEqual(self.run_cli("cancel", "c1-1").stdout, "cancelled 1 request\n")
        ran = self.run_cli("cancel", "other")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("other is not in progress", ran.stderr)
        self.assertEqual(ended, ["c1-1", "other"])

    def test_plan_shows_refusals_and_fails(self):
        self.daemon(lambda r: [done(accepted=False, epoch=1, composition="sha256:ab", memory_bytes=1 << 20,
                                    changes=[], refusals=[{"code": "not_found", "message": "module.yaml missing",
                                                           "hint": "check"}])])
        ran = self.run_cli("plan", self.path("c.yaml", "modules: []\n"))
        self.assertEqual(ran.returncode, 1)
        self.assertIn("module.yaml missing", ran.stdout)
        self.assertIn("1.0 MiB", ran.stdout)

    def test_a_plan_that_is_refused_at_once_tells_nothing_else(self):
        self.daemon(lambda r: [done(accepted=False, epoch=1, composition="", memory_bytes=0, changes=[],
                                    refusals=[{"code": "x", "message": "another backbone", "hint": "stop"}])])
        ran = self.run_cli("plan", self.path("c.yaml", "modules: []\n"))
        self.assertEqual((ran.returncode, ran.stdout), (1, "refused  another backbone. stop\n"))

    def test_control_commands_send_their_fields(self):
        self.daemon(lambda r: [done(epoch=2, composition="sha256:ab", changes=[], drained=True)])
        waits = {"wait": True, "detach": False, "progress": False}
        for arguments, expected in (
                (["load", "m/legal"], {"path": f"{self.directory.name}/m/legal", "in_flight": "pin", **waits}),
                (["load", "/m", "--disabled", "--bias", "-1.5", "--name", "n"],
                 {"path": "/m", "enabled": False, "bias": -1.5, "name": "n", "in_flight": "pin", **waits}),
                (["load", "/m", "--weight", "0.5"],
                 {"path": "/m", "weight": 0.5, "in_flight": "pin", **waits}),
                (["load", "/m", "--precision", "q8"],
                 {"path": "/m", "precision": "q8", "in_flight": "pin", **waits}),
                (["load", "/m", "--canary", "10%"], {"path": "/m", "in_flight": "pin", "canary": 0.1, **waits}),
                (["canary"], {}), (["unload", "a"], {"name": "a"}), (["revoke", "a"], {"name": "a", "proof": False}),
                (["enable", "a"], {"name": "a"}), (["disable", "a"], {"name": "a"}),
                (["load", "/m", "--enabled", "--detach"],
                 {"path": "/m", "enabled": True, "in_flight": "pin", **waits, "detach": True}),
                (["blend", "a", "b=0.25", "../c=-1e-3"],
                 {"name": "a", "lambda": {"b": 0.25, "../c": -0.001}, "in_flight": "pin", **waits}),
                (["bias", "a", "-0.5"], {"name": "a", "value": -0.5}), (["rollback"], waits),
                (["rollback", "4"], {"epoch": 4, **waits}), (["drain", "--timeout", "3"], {"timeout_ms": 3000}),
                (["shutdown"], {}), (["stats"], {})):
            ran = self.run_cli(*arguments)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            sent = self.peer.requests[-1]
            self.assertEqual({k: v for k, v in sent.items() if k not in ("id", "call")}, expected)
            self.assertEqual(sent["call"], arguments[0])

    def test_a_load_is_a_job(self):
        job = {"id": "job-3", "call": "load", "modules": ["legal"], "phase": "reading", "bytes": 3 << 20,
               "bytes_total": 4 << 20, "seconds": 1.25, "seconds_left": 0.4}
        ended = [{**job, "id": "job-1", "phase": "done", "epoch": 7},
                 {**job, "id": "job-2", "phase": "failed", "error": {"message": "no such file"}}]
        answers = {"modules": done(modules=[{"name": "legal", "version": "1", "state": "loading", "job": job}],
                                   jobs=[*ended, job]),
                   "cancel": done(target="job-3", cancelled=1), "apply": done(job="job-4"),
                   "load": done(job="job-3")}
        self.daemon(lambda r: [answers[r["call"]]])
        ran = self.run_cli("load", "/m", "--no-wait")
        self.assertEqual(ran.stdout, "job-3  `chimera jobs` shows how far it is, `chimera cancel job-3` ends it\n")
        self.assertEqual([self.peer.requests[-1][name] for name in ("wait", "progress")], [False, False])
        ran = self.run_cli("--json", "apply", self.path("c.yaml", "modules: []\n"), "--no-wait")
        self.assertEqual(json.loads(ran.stdout)["job"], "job-4")
        shown = self.run_cli("jobs").stdout.splitlines()
        self.assertEqual(len(shown), 4)
        self.assertRegex(shown[1], r"^job-1 +load +done +1\.2 +legal +epoch 7$")
        self.assertRegex(shown[2], r"^job-2 +load +failed +1\.2 +legal +no such file$")
        self.assertRegex(shown[3], r"^job-3 +load +reading +75 % +1\.2 +legal +1 s left$")
        self.assertEqual([json.loads(line)["id"] for line in self.run_cli("--json", "jobs").stdout.splitlines()],
                         ["job-1", "job-2", "job-3"])
        self.assertIn("loading 75 %", self.run_cli("modules").stdout)
        self.assertEqual(self.run_cli("cancel", "job-3").stdout, "cancelled job-3\n")

    def test_a_load_shows_how_far_it_is_on_a_terminal_only(self):
        job = {"id": "job-3", "modules": ["legal\x1b[31m"], "phase": "reading", "bytes": 3 << 20, "bytes_total": 4 << 20,
               "seconds_left": 0.4}

        def script(request):
            if request["progress"]:
                yield {"event": "progress", "job": job}
                yield {"event": "progress", "job": {**job, "phase": "publishing"}}
            yield done(epoch=2, composition="sha256:ab", changes=[{"action": "load", "module": "legal", "detail": "1"}])

        self.daemon(script)
        ours, theirs = pty.openpty()
        ran = subprocess.run(self.command("load", "/m"), stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=120)
        self.assertEqual(ran.stdout, "load legal  1\nepoch 2  sha256:ab\n")
        text = os.read(ours, 65536).decode()
        self.assertIn("\rreading legal?[31m  [" + "█" * 18 + " " * 6 + "]  75 % of 4.0 MiB, 1 s left\x1b[K", text)
        self.assertTrue(text.endswith("\r\x1b[K"), "the line is not taken away")
        for arguments in (["load", "/m"], ["--json", "load", "/m"]):
            ran = self.run_cli(*arguments)
            self.assertEqual((ran.returncode, ran.stderr), (0, ""))
            self.assertFalse(self.peer.requests[-1]["progress"])

    def test_ctrl_c_ends_the_waiting_for_a_load(self):
        sent = threading.Event()

        def script(request):
            sent.set()
            return []

        self.daemon(script)
        for options, told in ((["load", "/m"], "gives it up"), (["load", "/m", "--detach"], "chimera jobs")):
            sent.clear()
            process = subprocess.Popen(self.command(*options), stderr=subprocess.PIPE, text=True)
            self.assertTrue(sent.wait(60))
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 130)
            self.assertIn("load: interrupted", error)
            self.assertIn(told, error)

    def test_tables(self):
        answers = {
            "modules": done(modules=[{"name": "legal", "version": "1.2.0", "state": "active", "bias": 0.5, "experts": 16,
                                      "resident_bytes": 3 << 20, "description": "Contracts " * 20},
                                     {"name": "calc", "version": "1", "state": "quarantined", "library": {
                                         "isolation": "process", "sandbox": "seccomp landlock", "restarts": 4,
                                         "last_error": "its process exited"}}]),
            "routing": done(since="2026-01-01T00:00:00Z", layers=[{"layer": 0, "tokens": 10, "entropy": 0.5, "modules": {
                "backbone": {"share": 0.75, "experts": [5, 5]}, "legal": {"share": 0.25, "experts": [10]}}}]),
            "epochs": done(epoch=2, live=[{"epoch": 2, "sequences": 4, "composition": "sha256:ab", "current": True},
                                             {"epoch": 3, "sequences": 1, "composition": "sha256:cd", "canary": True}],
                           history=[{"epoch": 2, "time": "2026-01-01T00:00:00Z", "composition": "sha256:ab",
                                     "modules": [{"name": "legal", "version": "1.2.0", "enabled": True, "bias": 0.5},
                                                 {"name": "bio", "version": "2", "enabled": False, "bias": 0}],
                                     "revoked": ["finance"]}]),
            "health": done(status="ok", epoch=2), "info": INFO}
        self.daemon(lambda r: [answers[r["call"]]])
        self.assertIn("3.0 MiB", self.run_cli("modules").stdout)
        self.assertRegex(self.run_cli("modules").stdout, r"calc +1 +quarantined")
        self.assertIn("calc: process, sandbox seccomp landlock; 4 restarts; last error: its process exited",
                      self.run_cli("modules").stdout)
        self.assertIn("legal 1.2.0 bias 0.5, bio 2 (disabled); revoked: finance", self.run_cli("epochs").stdout)
        self.assertIn("since  2026-01-01T00:00:00Z", self.run_cli("routing").stdout)
        self.assertEqual(self.run_cli("routing", "--reset").returncode, 0)
        self.assertIs(self.peer.requests[-1]["reset"], True)
        self.assertIn("legal 25.0 %", self.run_cli("routing").stdout)
        self.assertIn("50.0 %", self.run_cli("routing", "--layer", "0").stdout)
        self.assertIn("2 *", self.run_cli("epochs").stdout)
        self.assertIn("canary: epoch 3, 1 live", self.run_cli("epochs").stdout)
        self.assertEqual(self.run_cli("health").stdout, "ok  epoch 2\n")
        self.assertIn("model_type", self.run_cli("info").stdout)
        self.assertNotIn("\x1b", self.run_cli("modules").stdout)

    def test_lines_fit_a_terminal_and_have_colour_there_only(self):
        self.daemon(lambda r: [done(modules=[{"name": "legal", "version": "1.2.0", "state": "active", "bias": 0,
                                              "experts": 16, "resident_bytes": 1, "description": "é" * 200}])])
        ours, theirs = pty.openpty()
        process = subprocess.Popen(self.command("modules"), stdout=theirs)
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 1 << 16):  # a terminal hands on what it has, piece by piece
                shown += chunk
        except OSError:  # its end
            pass
        os.close(ours)
        process.wait(timeout=60)
        shown = shown.decode()
        self.assertIn("\x1b[1m", shown)
        plain = shown.replace("\x1b[1m", "").replace("\x1b[0m", "")
        self.assertTrue(all(len(line) <= 80 for line in plain.splitlines()), plain)

    def test_wrong_usage_is_told(self):
        self.daemon(lambda r: [])
        for arguments in ([], ["helth"], ["bias", "a"], ["bias", "a", "x"], ["rollback", "0"], ["health", "extra"],
                          ["generate", "x", "--max-token", "3"], ["generate", "x", "--bias", "legal"],
                          ["load", "/m", "--in-flight", "later"], ["load", "/m", "--enabled", "--disabled"], ["top", "--interval", "0"], ["helth", "--help"],
                          ["generate", "x", "--modules", "a", "--no-modules"],
                          ["generate", "x", "--modules", ","], ["generate", "x", "--logprobs"],
                          ["generate", "x", "--seed", "-1"], ["drain", "--timeout", "-1"],
                          ["drain", "--timeout", "99999999999999999"],
                          ["score", "x", "--limit-bytes", "-1"], ["bias", "a", "nan"],
                          ["load", "/m", "--canary", "0"], ["load", "/m", "--canary", "110%"], ["canary", "stop"],
                          ["load", "/m", "--bias", "inf"], ["generate", "x", "--bias", "legal=nan"],
                          *(["generate", "x", *wrong] for wrong in OUT_OF_RANGE)):
            ran = self.run_cli(*arguments)
            self.assertEqual(ran.returncode, 2, arguments)
            self.assertTrue(ran.stderr.startswith("chimera: "), ran.stderr)
        self.assertEqual(self.peer.requests, [])

    def test_values_out_of_range_are_told_of_the_option(self):
        self.daemon(lambda r: [])
        for option, value in OUT_OF_RANGE:
            ran = self.run_cli("generate", "x", option, value)
            self.assertIn(option, ran.stderr)
            self.assertIn(value, ran.stderr)
        self.assertEqual(self.run_cli("health", "extra").stderr,
                         "chimera: health: 1 argument (expected health). see: chimera health --help\n")

    def test_every_help_fits_a_terminal_80_wide(self):
        def lines(*command):
            ran = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=120)
            self.assertEqual((ran.returncode, ran.stderr), (0, ""), command)
            # Paths are as long as they are.
            return [line for line in ran.stdout.splitlines() if not line.startswith("  ipc://")]

        programs = [p for p in Path(scripted.CHIMERA).parent.iterdir() if p.name.startswith("chimera")]
        texts = {p.name: lines(p) for p in programs}
        commands = [line.split()[0] for line in texts["chimera"] if line[:2] == "  " and line[2].isalpha()]
        self.assertGreater(len(commands), 15)
        for command in commands:
            texts["chimera " + command] = lines(scripted.CHIMERA, command)
        for name, text in texts.items():
            for line in text:
                self.assertLessEqual(len(line), 80, f"{name}: {line}")


if __name__ == "__main__":
    scripted.main()
