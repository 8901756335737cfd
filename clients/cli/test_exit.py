"""How `chimera` ends: exit statuses, errors for programs, lost output, text that cannot be sent.

usage: test_exit.py PATH_OF_CHIMERA
"""

import json
import os
import subprocess
from pathlib import Path

import scripted
from scripted import GENERATED, INFO, done

# The reason of the system, or that an earlier write failed.
NOT_WRITTEN = r"standard output: (No space left|Bad file|not everything was written)"
CHANGE = done(epoch=5, composition="sha256:ab", changes=[])
ANSWERS = {
    "generate": GENERATED | {"text": "whole", "tokens": [1]}, "chat": GENERATED | {"text": "hi"}, "info": INFO,
    "score": done(bits_per_byte=1.0, nats=1.0, count=1, logprobs=[-1.0], provenance=scripted.provenance()),
    "embed": done(finish_reason="embedded", embedding=[0.6, 0.8], usage={"prompt_tokens": 1}, provenance=scripted.provenance()),
    "modules": done(modules=[{"name": "legal", "version": "1"}],
                    jobs=[{"id": "job-1", "call": "load", "phase": "done", "modules": ["legal"], "epoch": 2}]),
    "epochs": done(epoch=1, live=[], history=[]), 
    "routing": done(layers=[{"layer": 0, "tokens": 1, "entropy": 0.5, "modules": {}}]),
    "plan": done(accepted=True, changes=[], refusals=[], memory_bytes=0, composition="sha256:ab"),
    "health": done(status="ok", epoch=1), "drain": done(drained=True), "audit": done(entries=[{"call": "load"}]), "usage": done(rows=[{"client": "a"}]), "tokenize": done(tokens=[1, 2]),
    "detokenize": done(text="Hi"), "requests": done(requests=[{"id": "c1", "call": "generate"}]), "cancel": done(cancelled=1),
}


class ExitTest(scripted.Scripted):
    def ends(self, code):
        """A daemon that answers everything with an error of this code."""
        self.daemon(lambda r: [{"event": "error", "code": code, "message": "x: no", "hint": "do y"}])

    def commands(self):
        """Arguments for every command in --help, and what it reads."""
        text = self.path("text.txt", "some text")
        composition = self.path("c.yaml", "modules: []\n")
        arguments = {
            "generate": ["x"], "chat": ["--template", "plain"], "score": [text], "embed": ["x"], "load": ["/m"], "unload": ["a"],
            "revoke": ["a"], "bias": ["a", "1"], "blend": ["a", "b=1"], "enable": ["a"], "disable": ["a"], "cancel": ["a"], "tokenize": ["x"],
            "detokenize": ["1"], "plan": [composition], "apply": [composition], "module": ["--help"], "backbone": ["--help"], "key": ["--help"], "receipt": ["--help"], "top": ["--once", "--interval", "0.05"],
        }
        listed = subprocess.run([scripted.CHIMERA, "--help"], capture_output=True, text=True, check=True).stdout
        names = [line.split()[0] for line in listed.splitlines()
                 if line.startswith("  ") and not line.startswith(("   ", "  ipc:", "  --"))]
        self.assertGreater(len(names), 20)
        return [[name, *arguments.get(name, [])] for name in names]

    def test_lost_output_is_a_failure_of_every_command(self):
        self.daemon(lambda r: [ANSWERS.get(r["call"], CHANGE)])
        closed = "exec \"$@\" >&-"
        for words in self.commands():
            for options in ([], ["--json"]):
                if words[1:] == ["--help"] and options:
                    continue
                command = [*self.command(), *options, *words]
                with self.subTest(command=words, options=options):
                    fine = subprocess.run(command, input="Hi\n", capture_output=True, text=True, timeout=120)
                    self.assertEqual(fine.returncode, 0, fine.stderr)
                    self.assertTrue(fine.stdout, "prints nothing: the test says nothing")
                    with open("/dev/full", "w") as full:
                        lost = subprocess.run(command, input="Hi\n", stdout=full, stderr=subprocess.PIPE,
                                              text=True, timeout=120)
                    self.assertEqual(lost.returncode, 1, words)
                    self.assertRegex(lost.stderr, NOT_WRITTEN)
                    lost = subprocess.run(["/bin/sh", "-c", closed, "sh", *command], input="Hi\n", text=True,
                                          stderr=subprocess.PIPE, timeout=120)
                    self.assertEqual(lost.returncode, 1, words)
                    self.assertRegex(lost.stderr, NOT_WRITTEN)

    def test_lost_output_of_the_other_programs(self):
        for program in Path(scripted.CHIMERA).parent.iterdir():
            if not program.name.startswith("chimera"):
                continue
            for option in ("--help", "--version"):
                fine = subprocess.run([program, option], capture_output=True, text=True, timeout=120)
                self.assertEqual((fine.returncode, fine.stderr), (0, ""), [program, option])
                if option == "--version":
                    self.assertRegex(fine.stdout, rf"^{program.name} \d+\.\d+")
                with open("/dev/full", "w") as full:
                    lost = subprocess.run([program, option], stdout=full, stderr=subprocess.PIPE, text=True,
                                          timeout=120)
                self.assertEqual(lost.returncode, 1, [program, option])
                self.assertIn("standard output", lost.stderr)

    def test_a_stream_nobody_can_read_is_ended(self):
        first = []

        def script(request):
            if request["call"] == "cancel":
                yield done(target=request["target"], cancelled=True)
                yield {**GENERATED, "finish_reason": "cancelled", "id": first[0]}
            else:
                first.append(request["id"])
                yield {"event": "token", "text": "a", "token": 1, "epoch": 3}

        self.daemon(script)
        with open("/dev/full", "w") as full:
            ran = subprocess.run(self.command("generate", "x"), stdout=full, stderr=subprocess.PIPE, text=True,
                                 timeout=120)
        self.assertEqual(ran.returncode, 1, ran.stderr)
        self.assertEqual([r["call"] for r in self.peer.requests], ["generate", "cancel"])

    def test_statuses_tell_what_may_be_tried_again(self):
        for code, status in (("unavailable", 75), ("resource_exhausted", 75), ("not_found", 1),
                             ("invalid_argument", 1), ("internal", 1)):
            self.ends(code)
            ran = self.run_cli("unload", "x")
            self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (status, "", "chimera: x: no. do y\n"))

    def test_errors_are_objects_for_programs(self):
        self.ends("not_found")
        ran = self.run_cli("--json", "unload", "x")
        self.assertEqual((ran.returncode, ran.stdout), (1, ""))
        self.assertEqual(json.loads(ran.stderr),
                         {"event": "error", "code": "not_found", "message": "x: no", "hint": "do y"})
        for wrong in (["unload"], ["unload", "x", "--nope"], ["helth"]):
            ran = self.run_cli("--json", *wrong)
            self.assertEqual(ran.returncode, 2)
            self.assertEqual(json.loads(ran.stderr)["code"], "invalid_argument")
        for command, status in ((["inspect", "/none"], 1), (["frobnicate"], 2), ([], 2)):
            ran = self.run_cli("--json", "module", *command)
            self.assertEqual((ran.returncode, ran.stdout), (status, ""))
            self.assertEqual(json.loads(ran.stderr)["event"], "error")
        daemon = subprocess.run([Path(scripted.CHIMERA).parent / "chimerad", "--nope"], capture_output=True,
                                timeout=120)
        self.assertEqual(daemon.returncode, 2)
        for program in ("chimera-module", "chimera-plugin-check"):
            ran = subprocess.run([Path(scripted.CHIMERA).parent / program, "--json", "--nope"],
                                 capture_output=True, text=True, timeout=120)
            self.assertEqual(ran.returncode, 2, program)
            self.assertEqual(json.loads(ran.stderr)["code"], "invalid_argument")

    def test_an_error_before_any_text_leaves_standard_output_empty(self):
        self.ends("failed_precondition")
        self.assertEqual(self.run_cli("generate", "x").stdout, "")

    def test_an_error_behind_text_begins_a_line(self):
        self.daemon(lambda r: [{"event": "token", "text": "a", "token": 1, "epoch": 3},
                               {"event": "error", "code": "internal", "message": "x", "hint": ""}])
        self.assertEqual(self.run_cli("generate", "x").stdout, "a\n")

    def test_what_is_not_utf8_is_refused_before_it_is_sent(self):
        self.daemon(lambda r: [GENERATED])
        bad = b"a\xff"
        for words in ([b"generate", bad], [b"generate", b"x", b"--stop", bad], [b"generate", b"x", b"--modules", bad],
                      [b"load", b"/m/" + bad], [b"unload", bad], [b"chat", b"--template", b"plain", b"--system", bad]):
            ran = subprocess.run([*map(os.fsencode, self.command()), *words], capture_output=True, timeout=120)
            self.assertEqual(ran.returncode, 2, words)
            self.assertIn(b"not UTF-8", ran.stderr)
        for words in (["generate", "-"], ["tokenize", "-"], ["chat", "--template", "plain"]):
            ran = subprocess.run(self.command(*words), input=bad + b"\n", capture_output=True, timeout=120)
            self.assertIn(b"byte 1 is not UTF-8", ran.stderr)
            self.assertEqual(ran.returncode, 1, words)  # the command was right, what it read was not
        self.assertEqual(self.peer.requests, [])

    def test_an_answer_that_stopped_at_a_limit_nobody_set_says_so(self):
        self.daemon(lambda r: [GENERATED])
        self.assertIn("stopped at the limit of 2 tokens", self.run_cli("generate", "x").stderr)
        self.assertEqual(self.run_cli("generate", "x", "--max-tokens", "2").stderr, "")
        self.assertEqual(self.run_cli("--json", "generate", "x").stderr, "")

    def test_chat_checks_the_chosen_modules_at_once(self):
        loaded = [{"name": "legal", "version": "1", "enabled": True}, {"name": "bio", "version": "1", "enabled": False}]
        self.daemon(lambda r: [INFO | {"modules": loaded} if r["call"] == "info" else GENERATED])
        ran = self.run_cli("chat", "--template", "plain", "--max-tokens", "2",
                           stdin="/modules legal,nope\n/modules bio\nHi\n")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("/modules: nope is not loaded", ran.stderr)
        self.assertIn("/modules: bio is disabled", ran.stderr)
        sent = [r for r in self.peer.requests if r["call"] == "generate"]
        self.assertEqual([r.get("modules") for r in sent], [None])


if __name__ == "__main__":
    scripted.main()
