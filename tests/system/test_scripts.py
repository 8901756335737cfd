"""./quickstart and ./check as one watches them: progress on one line, silence about what does not
matter, the whole truth when a step fails. cmake, apt-get and dpkg-query are stood in for."""
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request

from harness import BUILD, SLOW, SOURCE

NINJA = """#!/bin/sh
case "$*" in *--preset*) echo configured; exit 0 ;; esac
echo '@0/2@Re-checking globbed directories...'
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "@$i/12@Building CXX object $i.cc.o"; done
"""
BROKEN = NINJA + "echo 'FAILED: 7.cc.o'; echo '7.cc:1:1: error: no such thing'; exit 1\n"
APT = """#!/bin/sh
[ "$1" = update ] && { echo Hit:1 noise; exit 0; }
echo 'debconf: delaying package configuration' >&2
echo 'Selecting previously unselected package'
echo 'dlstatus:1:50.0:Retrieving file 1 of 2' >&3
echo 'pmstatus:g++:80.5:Unpacking g++ (amd64)' >&3
exit "${APT_STATUS:-0}"
"""


class Scripts(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="chimera-scripts-")
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.tools = self.root / "tools"
        self.tools.mkdir()
        self.tool("cmake", NINJA)
        self.environment = {**os.environ, "PATH": f"{self.tools}:{os.environ['PATH']}",
                            "TMPDIR": str(self.root), "TERM": "xterm"}

    def tool(self, name: str, text: str) -> None:
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def command(self, text: str) -> list[str]:
        return ["bash", "-c", f"set -euo pipefail; cd {self.root}; . {SOURCE}/scripts/progress.sh; "
                              f". {SOURCE}/scripts/dependencies.sh; {text}"]

    def run_in_pipe(self, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(text), env={**self.environment, **environment},
                              capture_output=True, text=True, timeout=60)
        self.assertNotRegex(done.stdout + done.stderr, r"[\x00-\x08\x0b-\x1f]")
        self.assertEqual([x for x in done.stdout.splitlines() if len(x) > 80], [])
        return done

    def test_a_build_in_a_pipe_is_a_few_lines(self) -> None:
        done = self.run_in_pipe("configure release; build build chimera")
        self.assertEqual(re.sub(r", .* left|(?<= in )\d+ s", "", done.stdout).splitlines(), [
            "Building", "Building: 25 %", "Building: 50 %", "Building: 75 %", "Building: 100 %",
            "Building: done in "], done.stderr)

    def test_a_build_on_a_terminal_is_one_line(self) -> None:
        self.tool("cmake", NINJA.replace('echo "@$i', 'sleep 0.2; echo "@$i'))
        ours, theirs = pty.openpty()
        process = subprocess.Popen(self.command("mkdir build; build build"), env=self.environment,
                                   stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # the end of a terminal
            pass
        os.close(ours)
        self.assertEqual(process.wait(timeout=60), 0)
        text = shown.decode()
        self.assertEqual(text.count("\n"), 1, text)
        self.assertRegex(text, r"\r\x1b\[KBuilding: \d+ %")
        self.assertTrue(text.endswith(" s\r\n"), text)

    def test_a_build_that_fails_says_why(self) -> None:
        self.tool("cmake", BROKEN)
        done = self.run_in_pipe("mkdir build; build build")
        self.assertEqual(done.returncode, 1)
        self.assertIn("7.cc:1:1: error: no such thing", done.stderr)
        self.assertIn("build/build.log", done.stderr)
        self.assertNotIn("@1/12@", done.stderr)

    def packages(self, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.tool("dpkg-query", "#!/bin/sh\nexit 1\n")
        self.tool("apt-get", APT)
        self.tool("sudo", "#!/bin/sh\nexec \"$@\"\n")
        return self.run_in_pipe(text, **environment)

    def test_installing_is_quiet(self) -> None:
        done = self.packages("install_dependencies; echo after")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        self.assertNotRegex(done.stdout, "debconf|Selecting|Hit:|Retrieving")
        self.assertRegex(done.stdout, r"Installing \d+ packages: 86 %")
        self.assertRegex(done.stdout, r"packages: done in \d+ s\nafter\n$")

    def test_installing_that_fails_shows_what_apt_said(self) -> None:
        done = self.packages("install_dependencies; echo after", APT_STATUS="100")
        self.assertEqual(done.returncode, 1)
        self.assertIn("debconf: delaying", done.stderr)
        self.assertNotIn("after", done.stdout)

    @unittest.skipIf(SLOW > 1, "a script is the same in every build")
    def test_what_quickstart_ends_with_works(self) -> None:
        self.tool("cmake", "#!/bin/sh\nexit 0\n")  # all is built
        self.tool("dpkg-query", "#!/bin/sh\necho install ok installed\n")
        (self.root / "run").mkdir(mode=0o700)
        environment = {**self.environment, "CHIMERA_BUILD": str(BUILD), "XDG_RUNTIME_DIR": str(self.root / "run")}
        process = subprocess.Popen([SOURCE / "quickstart"], env=environment, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, start_new_session=True)
        assert process.stdout is not None
        shown = ""
        try:
            for line in process.stdout:
                shown += line
                if line.startswith("Ctrl-C here ends"):
                    break
            command = shown[shown.rindex("  curl http://"):shown.rindex("Ctrl-C")]
            ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
            answer = json.loads(ran.stdout)
            self.assertTrue(answer["choices"][0]["message"]["content"], ran.stdout)
            page = shown.rsplit("in a browser: ", 1)[1].split()[0]
            self.assertIn(page + "v1/", command)
            with urllib.request.urlopen(page, timeout=60) as answered:
                self.assertIn(b"console.js", answered.read())
            # What is no terminal may be a log: it is told where the key is, and not the key.
            key = pathlib.Path(re.search(r"asks for the key in (.*)\)", shown)[1]).read_text().strip()
            self.assertNotIn(key, shown)
            os.killpg(process.pid, signal.SIGINT)
            self.assertIn("Stopped.", process.communicate(timeout=120)[0])
            self.assertEqual(process.returncode, 130)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.communicate(timeout=120)

    def test_ctrl_c_ends_a_build_with_130(self) -> None:
        # exec: a shell that is just forking would die of the signal and leave a sleep that never got it.
        self.tool("cmake", "#!/bin/sh\ncase \"$*\" in *--preset*) exit 0 ;; esac\n: >began\nexec sleep 60\n")
        for script in ("quickstart", "check"):
            copy = self.root / script
            copy.write_text((SOURCE / script).read_text())
            copy.chmod(0o755)
            if not (self.root / "scripts").exists():
                (self.root / "scripts").symlink_to(SOURCE / "scripts")
            self.tool("dpkg-query", "#!/bin/sh\necho install ok installed\n")
            (self.root / "began").unlink(missing_ok=True)
            process = subprocess.Popen([copy], env=self.environment, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, start_new_session=True)
            end = time.monotonic() + 60
            while not (self.root / "began").exists() and time.monotonic() < end:
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGINT)
            out, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 130, out)
            self.assertIn("Stopped", out)


if __name__ == "__main__":
    unittest.main()
