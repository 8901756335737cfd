"""`chimera blend --sweep` against a scripted daemon whose texts and answers change at one place.

usage: test_sweep.py PATH_OF_CHIMERA
"""

import json
import math
import signal
import subprocess
import threading
import xml.etree.ElementTree

import scripted
from scripted import GENERATED, INFO, done, provenance

TEXT = "y" * 10
FLIP, STEP = 0.544, 0.3127  # of the trait, and of bits per byte


class Blended:
    """A daemon's module `mix` of legal-a (the base) and legal-b, and what it makes of texts."""

    def __init__(self):
        self.lambdas = {"legal-a": 0.75, "legal-b": 0.25}
        self.epoch = 3
        self.fails = lambda b: False

    def answers(self, request):
        call = request["call"]
        if call == "modules":
            yield done(modules=[{"name": "mix", "state": "active", "lambda": self.lambdas},
                                {"name": "plain", "state": "active"}])
        elif call == "blend":
            parents = request["lambda"]
            if self.fails(parents.get("legal-b")):
                yield {"event": "error", "code": "data_corrupt", "message": "parent legal-b: broken", "hint": "x"}
                return
            self.lambdas = {"legal-a": 1 - parents.get("legal-b", 0), **parents}
            self.epoch += 1
            yield done(epoch=self.epoch, changes=[], composition="sha256:ab")
        elif call == "info":
            yield INFO
        elif call == "generate":
            word = "shall" if self.lambdas["legal-b"] > FLIP else "will"
            yield {"event": "token", "text": f"it {word}", "token": 1, "epoch": self.epoch}
            yield GENERATED
        else:  # score
            bits = 2 - self.lambdas["legal-b"] / 100 - (1 if self.lambdas["legal-b"] > STEP else 0)
            yield done(bits_per_byte=bits, nats=bits * len(TEXT) * math.log(2), count=5, logprobs=[-1.0] * 5,
                       provenance=provenance(mix=0.25 + self.lambdas["legal-b"] / 2))


class SweepTest(scripted.Scripted):
    def blended(self):
        blended = Blended()
        self.daemon(blended.answers)
        self.text = self.path("text.txt", TEXT)
        return blended

    def lines(self, ran):
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def test_finds_where_it_turns(self):
        blended = self.blended()
        before = dict(blended.lambdas)
        lines = self.lines(self.run_cli("--json", "blend", "mix", "--sweep", "legal-b=0:1:0.05", "--score",
                                        self.text, self.text, "--ask", "The parties", "--trait", "(?i)SHALL"))
        steps = [line for line in lines if line["event"] == "step"]
        self.assertEqual([s["lambda"] for s in steps[:21]], [round(i * 0.05, 9) for i in range(21)])
        self.assertEqual([s["trait"] for s in steps], [s["lambda"] > FLIP for s in steps])
        for step in steps:
            b = step["lambda"]
            self.assertAlmostEqual(step["bits_per_byte"], 2 - b / 100 - (1 if b > STEP else 0), places=9)
            self.assertAlmostEqual(step["shares"]["mix"], 0.25 + b / 2, places=9)
        found = {line["of"]: line for line in lines if line["event"] == "threshold"}
        for of, place in (("trait", FLIP), ("bits_per_byte", STEP)):
            low, high = found[of]["low"], found[of]["high"]
            self.assertTrue(low <= place <= high and high - low <= 0.001, found[of])
            self.assertAlmostEqual(found[of]["lambda"], place, delta=0.001)
        self.assertGreater(found["bits_per_byte"]["part"], 0.95)
        self.assertEqual(lines[-1]["lambda"], 1.0)  # the fewest bits
        self.assertEqual(blended.lambdas, before)
        self.assertLess(len(steps), 21 + 2 * 7)

    def test_a_table_a_picture_and_the_best_are_kept(self):
        blended = self.blended()
        picture = f"{self.directory.name}/sweep.svg"
        ran = self.run_cli("blend", "mix", "--sweep", "legal-b=0:1:0.25", "--score", self.text, "--plot", picture,
                           "--keep-best")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertRegex(ran.stdout, r"\n +0\.25 +1\.9975 +37\.5 %")
        self.assertIn("steepest at legal-b 0.31", ran.stdout)
        self.assertIn("best at legal-b 1: 0.9900 bits per byte", ran.stdout)
        self.assertEqual(blended.lambdas["legal-b"], 1)
        root = xml.etree.ElementTree.parse(picture).getroot()
        self.assertEqual(len(root.findall("{*}polyline")), 2)
        self.assertIn("steepest", "".join(root.itertext()))

    def test_nothing_that_changes_has_no_threshold(self):
        blended = self.blended()
        lines = self.lines(self.run_cli("--json", "blend", "mix", "--sweep", "legal-b=0.6:0.8:0.1", "--score",
                                        self.text, "--ask", "x", "--trait", "nothing"))
        self.assertEqual([line["of"] for line in lines if line["event"] == "threshold"], ["bits_per_byte"])
        self.assertEqual(blended.lambdas["legal-b"], 0.25)

    def test_an_error_puts_it_back(self):
        blended = self.blended()
        blended.fails = lambda b: b is not None and b > 0.5
        ran = self.run_cli("blend", "mix", "--sweep", "legal-b=0:1:0.1", "--score", self.text)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("parent legal-b: broken", ran.stderr)
        self.assertEqual(blended.lambdas, {"legal-a": 0.75, "legal-b": 0.25})

    def test_ctrl_c_puts_it_back(self):
        blended, began, go_on = self.blended(), threading.Event(), threading.Event()

        def script(request):
            if request["call"] == "score":
                began.set()
                go_on.wait(60)
            yield from blended.answers(request)

        self.peer.script = script
        process = subprocess.Popen(self.command("blend", "mix", "--sweep", "legal-b=0.5:1:0.1", "--score", self.text),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertTrue(began.wait(60))
        self.assertEqual(blended.lambdas["legal-b"], 0.5)
        process.send_signal(signal.SIGINT)
        go_on.set()
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(blended.lambdas, {"legal-a": 0.75, "legal-b": 0.25})

    def test_wrong_usage_sends_nothing(self):
        self.blended()
        sweep = ["--sweep", "legal-b=0:1:0.5"]
        for options in (["--sweep", "legal-b"], ["--sweep", "legal-b=1:0:0.1"], ["--sweep", "legal-b=0:1:0"],
                        ["--sweep", "legal-b=0:1:1e-9"], ["--sweep", "legal-b=0:1"], ["--sweep", "=0:1:0.1"],
                        [*sweep], [*sweep, "--score", self.text, "--ask", "x"],
                        [*sweep, "--score", self.text, "--ask", "x", "--trait", "(open"],
                        ["legal-b=1", *sweep, "--score", self.text]):
            ran = self.run_cli("blend", "mix", *options)
            self.assertEqual((ran.returncode, self.peer.requests), (2, []), (options, ran.stderr))
        for name, parent in (("mix", "legal-c"), ("plain", "legal-b"), ("none", "legal-b")):
            ran = self.run_cli("blend", name, "--sweep", f"{parent}=0:1:0.5", "--score", self.text)
            self.assertEqual(ran.returncode, 1)
            self.assertIn(f"parent {parent} of {name}", ran.stderr)
        self.assertNotIn("blend", [r["call"] for r in self.peer.requests])


if __name__ == "__main__":
    scripted.main()
