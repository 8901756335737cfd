"""The documents as a newcomer uses them: every command in them runs, every output that they show is
what comes out, every number that the tree knows is that number.

`sh` blocks run in order, each in a shell of its own, in a folder that looks like the root of a built
checkout. `console` blocks show commands with their output. A block that cannot run says why in a
comment before it, and is listed here.
"""
import difflib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import gguf_files
from documents import COMMAND, DOCUMENTS, blocks_of, code_spans, name_of, prose_of, table_rows
from harness import BIN, BUILD, GOLDEN, SLOW, SOURCE, Daemon, run, split

sys.path.insert(0, str(SOURCE / "scripts"))
import share_picture  # noqa: E402

README = SOURCE / "README.md"
# Blocks that are not run, by document and first command.
NOT_RUN = {
    ("README.md", "./quickstart"), ("README.md", "$ chimera-bench latency"),
    ("README.md", "$ chimera-bench swap"), ("CONTRIBUTING.md", "./check"),
    ("docs/plugin-checker.md", "gdb --args"), ("docs/installing.md", "cmake --preset"),
    ("docs/security.md", "chimera key new"), ("docs/security.md", "chimera usage --by"),
    ("README.md", "apt install"), ("docs/assembly.md", "chimera module seal"),
    ("docs/security.md", "chimera generate"),
    ("docs/packages.md", "adduser alice"), ("docs/packages.md", "chimera --endpoint"),
    ("docs/packages.md", "podman build"),
    ("plugin-api/template/README.md", "cmake --workflow"),
    ("plugin-api/template/README.md", "chimera-plugin-check build/module"),
}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def masked(text: str) -> str:
    """Without what depends on the machine."""
    text = re.sub(r"after \d+ ms", "after N ms", text)
    text = re.sub(r"time  +[\d.]+ s, \d+ tokens per second", "time  T", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@unittest.skipIf(SLOW > 1, "the documents are the same in every build")
class Commands(unittest.TestCase):
    def setUp(self) -> None:
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="chimera-docs-"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.tree = self.root / "tree"
        self.tree.mkdir()
        for entry in SOURCE.iterdir():
            if not entry.name.startswith((".", "build")):
                (self.tree / entry.name).symlink_to(entry)
        (self.tree / "build").symlink_to(BUILD)
        (self.root / "run").mkdir(mode=0o700)
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.root / "run"),
                            "XDG_STATE_HOME": str(self.root / "state"), "HOME": str(self.root)}
        self.sessions: list[int] = []
        self.addCleanup(self.end_sessions)

    def end_sessions(self) -> None:
        """Whatever the blocks left in the background."""
        for session in self.sessions:
            try:
                os.killpg(session, signal.SIGTERM)
            except ProcessLookupError:
                pass
        self.sessions.clear()
        meeting = self.root / "run" / "chimera" / "serve.sock"
        end = time.monotonic() + 60
        while meeting.exists() and time.monotonic() < end:
            time.sleep(0.02)

    def execute(self, what: str, *command: str) -> str:
        log = self.root / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=self.tree, env=self.environment, stdout=output,
                                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                       start_new_session=True)
            self.sessions.append(process.pid)
            status = process.wait(timeout=300)
        text = log.read_text(errors="replace")
        self.assertEqual(status, 0, f"{what}:\n{text}")
        return text

    def shell(self, what: str, text: str) -> str:
        # A reader takes longer to type the next line than a daemon to start.
        text = re.sub(r"^(\S.*&)\s*(#.*)?$", r"\1\nfor _ in $(seq 600); do chimera health >/dev/null "
                      r"2>&1 && break; sleep 0.1; done", text, flags=re.M)
        text = text.replace("$(seq 100)", "$(seq 600)")  # nor is every machine a reader's
        script = self.root / "block.sh"
        script.write_text(text)
        return self.execute(what, "bash", "-euo", "pipefail", str(script))

    def models(self) -> dict[str, str]:
        """The places that the documents name for what a reader has."""
        whole, parts = self.root / "whole-moe", self.root / "parts"
        if not whole.exists():
            shutil.copytree(GOLDEN / "mixtral_bf16", whole,
                            ignore=shutil.ignore_patterns("alt_configs"))
            shutil.copy(GOLDEN / "tiny312_tokenizer.json", whole / "tokenizer.json")
            split(whole, parts, legal="6,7")
            # `model.gguf`, as a reader has one: in the folder that the commands run in.
            gguf_files.convert(GOLDEN / "mixtral_bf16", self.tree / "model.gguf")
        return {"/models/whole-moe": str(whole), "/models/my-moe": str(parts / "backbone"),
                "/models/modules/legal": str(parts / "modules" / "legal")}

    def commands_of(self, path: pathlib.Path) -> None:
        places, carried, ran = self.models(), "", 0
        for block in blocks_of(path):
            text = block.text
            for place, real in places.items():
                text = text.replace(place, real)
            named = re.match(r"# (\w+\.yaml)", text)
            if block.language == "yaml" and named and "chimera: deployment/1" in text:
                (self.tree / named[1]).write_text(text)
            if block.language != "sh" or block.marker:
                continue
            if "127.0.0.1:8080" in text and not is_free(8080):
                print(f"{block}: not run, another program listens on port 8080")
                continue
            if re.search(r"^chimerad .*&", text, re.M):
                self.end_sessions()  # a reader stops one daemon before starting another
            with self.subTest(block=str(block)):
                self.shell(str(block), carried + text)
                ran += 1
            carried += "".join(line + "\n" for line in text.splitlines()
                               if line.startswith("export "))
        print(f"{name_of(path)}: {ran} blocks ran")

    def test_readme(self) -> None:
        self.commands_of(README)

    def test_docs(self) -> None:
        self.environment["PATH"] = f"{BIN}:{self.environment['PATH']}"
        for path in DOCUMENTS:
            if path != README:
                self.commands_of(path)

    def test_python(self) -> None:
        self.environment["PATH"] = f"{BIN}:{self.environment['PATH']}"
        self.environment["PYTHONPATH"] = "clients/python"
        self.shell("demo", "chimerad --config configs/demo.yaml &\n")
        for path in DOCUMENTS:
            for block in blocks_of(path):
                if block.language == "python":
                    with self.subTest(block=str(block)):
                        self.assertTrue(self.execute(str(block), sys.executable, "-c", block.text))

    def test_quickstart(self) -> None:
        """Without the build, which is what its reader just waited for."""
        self.environment["CHIMERA_BUILD"] = str(BUILD)
        found = self.execute("quickstart", str(SOURCE / "quickstart"), "--no-build")
        shown = [b for b in blocks_of(README) if b.heading == "The main job"][0].text
        self.assertNotRegex(found, r"[\x00-\x08\x0b-\x1f]", "control characters in a file")
        # `chimera modules` cuts descriptions on a terminal only.
        self.assertEqual([line for line in found.splitlines() if len(line) > 80 and
                          not line.startswith("legal ")], [])
        if masked(found) != masked(shown):
            self.fail("README shows another output:\n" + "\n".join(difflib.unified_diff(
                masked(shown).splitlines(), masked(found).splitlines(), "README.md", "quickstart",
                lineterm="")))


class Blocks(unittest.TestCase):
    def test_only_listed_blocks_are_not_run(self) -> None:
        found = {(b.document, " ".join(b.text.split()[:3]))
                 for path in DOCUMENTS for b in blocks_of(path) if b.marker}
        unlisted = {(d, c) for d, c in found
                    if not any(d == listed and c.startswith(start) for listed, start in NOT_RUN)}
        self.assertEqual(unlisted, set())
        self.assertEqual(len(found), len(NOT_RUN), "a block that is listed is gone")

    def test_commands_stand_in_blocks_that_are_run(self) -> None:
        for path in DOCUMENTS:
            for block in blocks_of(path):
                first = block.text.lstrip().split("\n", 1)[0]
                if block.language == "console":
                    self.assertTrue(block.marker or block.heading == "The main job", str(block))
                elif block.language == "text" and COMMAND.match(first):
                    self.assertRegex(first, r"[A-Z]{3}", f"{block}: no placeholder, so it can run")
                elif block.language != "sh":
                    self.assertIsNone(COMMAND.match(first), str(block))
            for line in prose_of(path).splitlines():
                self.assertFalse(line.startswith("    ") and COMMAND.match(line),
                                 f"{name_of(path)}: indented command {line.strip()!r}")


class Numbers(unittest.TestCase):
    """What can be computed is computed."""
    TEXT = README.read_text()

    def stated(self, pattern: str) -> str:
        found = re.search(pattern, self.TEXT)
        self.assertIsNotNone(found, f"README says nowhere {pattern}")
        return found[1]

    def test_parameters(self) -> None:
        told = run("chimera", "module", "inspect", SOURCE / "experts" / "backbone").stdout
        parameters = re.search(r"^parameters +([\d.]+) million", told, re.M)[1]
        self.assertEqual(self.stated(r"An ([\d.]+) M-parameter"), parameters)

    def test_evaluation(self) -> None:
        evaluation = SOURCE / "experts" / "EVALUATION.md"
        self.assertEqual(table_rows(README, "## Is the demo model any good?"),
                         table_rows(evaluation, "## Bits per byte"))
        self.assertEqual(table_rows(README, "## Own sources and unseen ones"),
                         table_rows(evaluation, "## Own sources and unseen ones"))
        simple = next(json.loads(b.text) for b in blocks_of(evaluation) if b.language == "json")
        for name, key in (("gzip -9 needs", "gzip_9"), ("xz -9", "xz_9"),
                          ("5-gram character model", "char_5gram")):
            self.assertEqual(self.stated(name + r"\s+([\d.]+)"),
                             f"{simple[key + '_bits_per_byte']:.2f}")

    def test_prompts_that_reach_their_module(self) -> None:
        told = (SOURCE / "experts" / "EVALUATION.md").read_text()

        def first(words: int) -> list[str]:
            return [re.search(rf"^\| {words} \| {m} \|.* (\d+) of 24 \|$", told, re.M)[1]
                    for m in ("legal", "bio", "finance")]

        six, fifty = first(6), first(50)
        self.assertIn(f"{six[0]} (legal), {six[1]} (bio) and {six[2]} (finance) of 24 prompts of six words have their "
                      f"own module first, {fifty[0]}, {fifty[1]} and {fifty[2]} of those of 50 words",
                      " ".join(self.TEXT.split()))

    def test_where_the_answer_of_two_versions_turns(self) -> None:
        drawn = (SOURCE / "docs" / "images" / "blend.svg").read_text()
        place = format(float(re.search(r">trait ([\d.]+)<", drawn)[1]), ".3f")
        self.assertEqual(self.stated(r"answer to a prompt turns at ([\d.]+) of"), place)
        self.assertEqual(self.stated(r"trait of the answer turns at ([\d.]+)\]"), place)

    @unittest.skipIf(SLOW > 1, "the documents are the same in every build")
    def test_answers_of_the_demo(self) -> None:
        rows = [row for row in table_rows(README, "## The main job") if row[0] != "prompt"]
        self.assertEqual(len(rows), 3)
        modules = [{"path": str(SOURCE / "experts" / m)} for m in ("legal", "bio", "finance")]
        with Daemon(SOURCE / "experts" / "backbone", modules=modules, precision="bf16", top_k=2,
                    serve={"max_context": 1024}) as daemon, daemon.client() as client:
            for cell, alone, together in rows:
                prompt, module = re.fullmatch(r"(.*) … \((\w+)\)", cell).groups()
                for only, shown in (([], alone), ([module], together)):
                    done = client.complete(prompt, max_tokens=40, temperature=0.5, seed=7,
                                           modules={"only": only})
                    self.assertEqual(" ".join(done["text"].split()), " ".join(shown.split()))

    @unittest.skipIf(SLOW > 1, "the documents are the same in every build")
    def test_picture_of_the_shares(self) -> None:
        """It is of what README says, drawn anew."""
        shown = re.search(r"^!\[chimera generate (.*) --shares: .*\]\((docs/images/shares\.svg)\)$", self.TEXT, re.M)
        self.assertIsNotNone(shown, "README shows no picture of chimera generate --shares")
        modules = [{"path": str(SOURCE / "experts" / m)} for m in ("legal", "bio", "finance")]
        with Daemon(SOURCE / "experts" / "backbone", modules=modules, precision="bf16", top_k=2,
                    serve={"max_context": 1024}) as daemon:
            drawn = share_picture.picture(shlex.split(shown[1]), daemon.serve_endpoint)
        self.assertEqual(drawn, (SOURCE / shown[2]).read_text(), "scripts/share_picture.py draws it")
        self.assertGreater(len(set(re.findall(r'fill="(#\w+)">', drawn))), 1, "one colour tells nothing")

    def test_cases_and_plugins_of_the_checker(self) -> None:
        cases = run("chimera-plugin-check", "--list").stdout.splitlines()
        numbers = [int(m[1]) for m in (re.match(r"[A-F](\d+) ", c) for c in cases) if m]
        self.assertEqual(int(self.stated(r"`chimera-plugin-check` runs (\d+) cases")), len(numbers))
        document = (SOURCE / "docs" / "plugin-checker.md").read_text()
        document = " ".join(document[document.index("## The cases"):].split())
        for number in numbers:
            self.assertRegex(document, rf"[·.]\*{{0,2}} {number} ", "docs/plugin-checker.md")
        plugins = SOURCE / "tests" / "plugins"
        sys.path.insert(0, str(plugins))
        import zoo_modules
        import zoo_test
        zoo = zoo_test.read_expected(plugins / "zoo" / "expected.txt")
        self.assertEqual(int(self.stated(r"gives (\d+) sinful and good plugins and modules")),
                         len(zoo) + len(zoo_modules.VARIANTS) + 2)

    def test_lengths_of_the_storms(self) -> None:
        import test_library
        import test_swap
        self.assertEqual(self.stated(r"(\d+) streams under"), str(test_swap.CLIENTS))
        self.assertEqual(self.stated(r"streams under (\d+) changes a second"),
                         str(test_swap.CHANGES_PER_SECOND))
        if not test_library.LONG:
            self.assertEqual(self.stated(r"(\d+) cycles leave nothing"), str(test_library.CYCLES))


class Names(unittest.TestCase):
    def test_tests_exist(self) -> None:
        listed = subprocess.run(["ctest", "--test-dir", BUILD, "-N"], capture_output=True, text=True)
        tests = set(re.findall(r"Test +#\d+: (\S+)", listed.stdout))
        self.assertGreater(len(tests), 50)
        for path in DOCUMENTS:
            for span in code_spans(path):
                if re.fullmatch(r"\w+_test|system_test_\w+|plugins_\w+|plugin_api_\w+", span):
                    self.assertIn(span, tests, name_of(path))

    def test_links_lead_somewhere(self) -> None:
        for path in DOCUMENTS:
            for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", prose_of(path)):
                if target and "://" not in target:
                    self.assertTrue((path.parent / target).exists(), f"{name_of(path)}: {target}")

    def test_files_exist(self) -> None:
        """Paths with a folder; names of headers are those that plugins include."""
        for path in DOCUMENTS:
            for span in code_spans(path):
                if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(h|hpp|cc|py|md|sh|txt|yaml)", span) or \
                        span.startswith("build/") or re.search(r"[A-Z]{3}.*\.cc", span):
                    continue
                # From the root, from the document, or from a room that the text is about.
                roots = (SOURCE, path.parent, SOURCE / "plugin-api/include", SOURCE / "tests/plugins",
                         *(room for room in SOURCE.iterdir() if room.is_dir()))
                self.assertTrue(any((root / span).exists() for root in roots),
                                f"{name_of(path)}: {span}")

    def test_commands_exist(self) -> None:
        help_text = run("chimera", "--help").stdout
        commands = {line.split()[0] for line in help_text.splitlines() if line.startswith("  ")}
        self.assertGreater(len(commands), 15)
        for path in DOCUMENTS:
            for span in code_spans(path):
                named = re.match(r"chimera (?:--\w+ )?([a-z]+)", span)
                if named:
                    self.assertIn(named[1], commands, f"{name_of(path)}: `{span}`")
                    self.options_exist(["chimera", named[1]], span, path)
                for script in ("quickstart", "check"):
                    if span.startswith(f"./{script} "):
                        self.options_exist([f"../../{script}"], span, path)

    def options_exist(self, command: list[str], span: str, path: pathlib.Path) -> None:
        options = re.findall(r"--[a-z-]+", span)
        if not options or command == ["chimera", "module"]:
            return
        program = SOURCE / command[0][6:] if command[0].startswith("../") else BIN / command[0]
        told = subprocess.run([program, *command[1:], "--help"], capture_output=True, text=True).stdout
        told += run("chimera", "--help").stdout
        for option in options:
            self.assertIn(option, told, f"{name_of(path)}: `{span}`")


if __name__ == "__main__":
    unittest.main()
