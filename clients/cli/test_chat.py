"""`chimera chat` against a scripted daemon: what it sends, prints and takes from a terminal.

usage: test_chat.py PATH_OF_CHIMERA
"""

import os
import pty
import select
import signal
import subprocess
import termios
import time

import scripted
from scripted import GENERATED, INFO, done


ENDED = {**GENERATED, "finish_reason": "stop"}


class ChatTest(scripted.Scripted):
    def chat_script(self, has_template=True, text=" Hello."):
        def script(request):
            if request["call"] == "info":
                yield {**INFO, "has_chat_template": has_template,
                       "modules": [{"name": "legal", "version": "1.2.0", "enabled": True},
                                   {"name": "bio", "version": "2.0.0", "enabled": False}]}
            else:
                yield {"event": "token", "text": text, "token": 1, "epoch": 3}
                yield ENDED
        return script

    def test_chat_sends_the_whole_conversation(self):
        self.daemon(self.chat_script())
        ran = self.run_cli("chat", "--temperature", "0", "--system", "Be brief",
                           stdin="Hi\n\nMore\n/clear\n//new\n/quit\nnever\n")
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (0, " Hello.\n" * 3, ""))
        sent = [r["messages"] for r in self.peer.requests if r["call"] == "chat"]
        first = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
        self.assertEqual(sent, [first, first + [{"role": "assistant", "content": " Hello."},
                                                {"role": "user", "content": "More"}],
                                [first[0], {"role": "user", "content": "/new"}]])
        self.assertEqual(self.peer.requests[1]["temperature"], 0)

    def test_chat_without_a_template_asks_for_a_choice(self):
        self.daemon(self.chat_script(has_template=False))
        ran = self.run_cli("chat", stdin="Hi\n")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("--template plain", ran.stderr)
        self.assertEqual([r["call"] for r in self.peer.requests], ["info"])

    def test_plain_chat_keeps_the_transcript(self):
        self.daemon(self.chat_script())
        ran = self.run_cli("chat", "--template", "plain", stdin="Hi\nMore\n/clear\nNew\n")
        self.assertEqual(ran.stdout, " Hello.\n" * 3)
        prompts = [r["prompt"] for r in self.peer.requests if r["call"] == "generate"]
        self.assertEqual(prompts, ["User: Hi\nAssistant:",
                                   "User: Hi\nAssistant: Hello.\nUser: More\nAssistant:",
                                   "User: New\nAssistant:"])
        self.assertEqual(self.peer.requests[0]["stop"], ["\nUser:"])

    def test_chat_commands(self):
        self.daemon(self.chat_script())
        ran = self.run_cli("chat", "--exclude", "x",
                           stdin="/stats\n/modules\n/modules legal\nHi\n/modules all\nHi\n/stats\n/help\n/nonsense\n")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("no answer yet", ran.stderr)
        self.assertIn("/nonsense", ran.stderr)
        self.assertIn("/modules [A,B|all]", ran.stderr)
        self.assertIn("legal", ran.stdout)
        self.assertIn("disabled", ran.stdout)
        self.assertIn("legal 25.0 %", ran.stdout)
        chats = [r for r in self.peer.requests if r["call"] == "chat"]
        self.assertEqual([r["modules"] for r in chats],
                         [{"only": ["legal"], "exclude": ["x"]}, {"exclude": ["x"]}])

    def test_a_failed_turn_is_taken_back(self):
        def script(request):
            if request["call"] == "info":
                yield {**INFO, "has_chat_template": True}
            elif request["messages"][-1]["content"] == "bad":
                yield {"event": "error", "code": "invalid_argument", "message": "chat: no", "hint": ""}
            else:
                yield GENERATED | {"text": "ok"}
        self.daemon(script)
        ran = self.run_cli("chat", stdin="bad\ngood\n")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("chat: no", ran.stderr)
        self.assertEqual([len(r["messages"]) for r in self.peer.requests[1:]], [1, 1])

    def test_ctrl_c_cancels_only_the_answer(self):
        def script(request):
            if request["call"] == "info":
                yield {**INFO, "has_chat_template": True}
            elif request["call"] == "cancel":
                yield done(target=request["target"], cancelled=True)
                yield {**GENERATED, "id": request["target"], "finish_reason": "cancelled"}
            elif request["messages"][-1]["content"] == "slow":
                yield {"event": "token", "text": "part", "token": 1, "epoch": 3}
            else:
                yield {"event": "token", "text": "whole", "token": 1, "epoch": 3}
                yield ENDED
        self.daemon(script)
        process = subprocess.Popen(self.command("chat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        process.stdin.write("slow\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.read(4), "part")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.stdout.readline(), "\n")
        out, error = process.communicate("again\n", timeout=60)
        self.assertEqual((process.returncode, out, error), (0, "whole\n", ""))
        chats = [r["messages"] for r in self.peer.requests if r["call"] == "chat"]
        self.assertEqual([m["content"] for m in chats[1]], ["slow", "part", "again"])

    def test_chat_on_a_terminal_edits_lines(self):
        self.daemon(self.chat_script())
        ours, theirs = pty.openpty()
        process = subprocess.Popen(self.command("chat"), stdin=theirs, stdout=theirs, stderr=theirs,
                                   env={**os.environ, "TERM": "xterm"}, start_new_session=True)
        os.close(theirs)
        shown = ""

        def until(text):
            nonlocal shown
            deadline = time.monotonic() + 60
            while text not in shown and time.monotonic() < deadline:
                if select.select([ours], [], [], 1.0)[0]:
                    shown += os.read(ours, 1 << 16).decode(errors="replace")
            self.assertIn(text, shown)
            # What was read may hold more than was waited for: the prompt, for one.
            shown = shown.split(text, 1)[1]

        def press(keys):
            # After the prompt, once the terminal is in the editor's mode (it prints first): what
            # comes sooner is not the editor's, and a Ctrl-D would be lost.
            until("> ")
            deadline = time.monotonic() + 60
            while termios.tcgetattr(ours)[3] & termios.ICANON and time.monotonic() < deadline:
                time.sleep(0.001)
            os.write(ours, keys)

        press(b"thrown away")
        until("thrown away")
        process.send_signal(signal.SIGINT)
        until("/quit leaves")
        press(b"HiX\x7f\r")  # backspace
        until("Hello.")
        press(b"\x04")  # Ctrl-D
        self.assertEqual(process.wait(timeout=60), 0)
        os.close(ours)
        sent = [r["messages"][-1]["content"] for r in self.peer.requests if r["call"] == "chat"]
        self.assertEqual(sent, ["Hi"])


if __name__ == "__main__":
    scripted.main()
