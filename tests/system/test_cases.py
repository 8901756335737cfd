"""Inputs that once were refused without need, accepted without right, or told of in words that
misled: small ones made here, and the collection beside the project where it is present."""
import json
import shutil
import struct
import tempfile
import unittest
from pathlib import Path

from harness import GOLDEN, SOURCE, Daemon, chimera_client, flat, run

CASES = SOURCE.parent / "shared" / "cases"
CHECKPOINT = GOLDEN / "olmoe_bf16"


def change(source: Path, target: Path, edit) -> Path:
    """A copy of a checkpoint whose safetensors header went through `edit`."""
    target.mkdir(parents=True)
    shutil.copy(source / "config.json", target)
    data = (source / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    text = json.dumps(edit(header)).encode()
    (target / "model.safetensors").write_bytes(
        struct.pack("<Q", len(text)) + text + data[8 + length:])
    return target


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="chimera-cases-"))

    def tearDown(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def daemon_says(self, checkpoint: Path) -> str:
        """Why the daemon refuses the checkpoint."""
        config = self.scratch / "d.yaml"
        config.write_text(json.dumps({
            "chimera": "deployment/1", "backbone": {"path": str(checkpoint)},
            "state": str(self.scratch / "state"),
            "serve": {"endpoint": f"ipc://{self.scratch}/serve"},
            "control": {"endpoint": f"ipc://{self.scratch}/control"}}))
        started = run("chimerad", "--config", config, check=False)
        self.assertNotEqual(started.returncode, 0)
        checked = run("chimerad", "--config", config, "--check", check=False)
        self.assertNotEqual(checked.returncode, 0)
        reason = started.stderr.strip().splitlines()[-1].removeprefix("chimerad: ")
        self.assertIn(reason, checked.stderr)
        return reason

    def refused(self, checkpoint: Path, *words: str) -> None:
        """inspect says no, with the daemon's own reason, and so does its exit status."""
        reason = self.daemon_says(checkpoint)
        for word in words:
            self.assertIn(word, reason)
        plain = run("chimera", "module", "inspect", checkpoint, check=False)
        self.assertEqual(plain.returncode, 1)
        self.assertRegex(plain.stdout, r"(?m)^runs +no$")
        self.assertNotIn("json.exception", plain.stdout + plain.stderr)
        listed = run("chimera", "module", "inspect", checkpoint, "--json", check=False)
        self.assertEqual(listed.returncode, 1)
        report = json.loads(listed.stdout)
        self.assertFalse(report["runs"])
        self.assertEqual(report["refused"], reason)


class Inspect(Scratch):
    def test_a_checkpoint_that_runs_exits_with_zero(self) -> None:
        done = run("chimera", "module", "inspect", CHECKPOINT)
        self.assertRegex(done.stdout, r"(?m)^runs +yes$")

    def test_a_refused_configuration_gives_the_loaders_reason(self) -> None:
        for name, edit, words in [
                ("hqq", {"quantization_config": {"quant_method": "hqq", "bits": 4}},
                 ("quantization_config", "hqq")),
                ("v32", {"model_type": "deepseek_v32"}, ("deepseek_v32",)),
                ("foreign", {"final_logit_softcapping": 30.0}, ("final_logit_softcapping is 30.0",)),
                ("mlx", {"quantization": {"bits": 4}}, ("quantization",))]:
            with self.subTest(name):
                target = change(CHECKPOINT, self.scratch / name, lambda header: header)
                config = json.loads((target / "config.json").read_text())
                (target / "config.json").write_text(json.dumps({**config, **edit}))
                self.refused(target, *words)

    def test_a_tensor_that_does_not_fit_gives_the_loaders_reason(self) -> None:
        q_proj = "model.layers.1.self_attn.q_proj.weight"
        o_proj = "model.layers.0.self_attn.o_proj.weight"

        def renamed(header):
            return {("q.weight" if name == q_proj else name): entry
                    for name, entry in header.items()}

        def unnormed(header):
            header["unused"] = header.pop("model.norm.weight")
            return header

        def misshaped(header):
            rows, columns = header[o_proj]["shape"]
            header[o_proj]["shape"] = [rows * 2, columns // 2]
            return header

        def packed(header):
            entry = header[q_proj]
            entry["dtype"], entry["shape"] = "U32", [entry["shape"][0], entry["shape"][1] // 2]
            return header

        for edit, words in [(renamed, ("lacks tensor", q_proj)),
                            (unnormed, ("lacks tensor", "model.norm.weight")),
                            (misshaped, (o_proj, "has shape")), (packed, (q_proj,))]:
            with self.subTest(edit.__name__):
                self.refused(change(CHECKPOINT, self.scratch / edit.__name__, edit), *words)

    @unittest.skipUnless(CASES.exists(), f"{CASES} is absent")
    def test_the_collected_cases_are_refused(self) -> None:
        for folder in ["inspect-refused-config", "inspect-runs-yes"]:
            for case in sorted((CASES / folder).iterdir()):
                with self.subTest(case.name):
                    self.refused(case)


class Messages(Scratch):
    def test_a_git_lfs_pointer_is_called_one(self) -> None:
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5368709120\n"
        for name in ["model.safetensors", "config.json"]:
            with self.subTest(name):
                target = self.scratch / name.partition(".")[0]
                shutil.copytree(CHECKPOINT, target)
                (target / name).chmod(0o644)
                (target / name).write_text(pointer)
                done = run("chimera", "module", "inspect", target, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(f"{name}: is a Git LFS pointer", done.stdout + done.stderr)
                self.assertIn("Fetch the file", done.stdout + done.stderr)
                self.assertIn("Git LFS pointer", self.daemon_says(target))

    def test_a_newer_dtype_is_called_unsupported(self) -> None:
        def newer(header):
            header["model.norm.weight"]["dtype"] = "F8_E8M0"
            return header

        target = change(CHECKPOINT, self.scratch / "newer", newer)
        reason = self.daemon_says(target)
        self.assertIn("dtype F8_E8M0 is not supported", reason)
        self.assertNotIn("current safetensors library", reason)


class Check(Scratch):
    """`chimerad --check` says what a start would say of places and limits, and makes nothing."""

    def check(self, **changes):
        config = self.scratch / "d.yaml"
        config.write_text(json.dumps({
            "chimera": "deployment/1", "backbone": {"path": str(CHECKPOINT)},
            "state": str(self.scratch / "state"),
            "serve": {"endpoint": f"ipc://{self.scratch}/serve"},
            "control": {"endpoint": f"ipc://{self.scratch}/control"}, **changes}))
        before = sorted(self.scratch.iterdir())
        done = run("chimerad", "--config", config, "--check", check=False)
        self.assertEqual(sorted(self.scratch.iterdir()), before)
        return done

    def test_places_that_can_be_made_pass(self) -> None:
        done = self.check(state=str(self.scratch / "a" / "b"),
                          serve={"endpoint": f"ipc://{self.scratch}/c/serve"})
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_places_that_cannot_be_made_are_problems(self) -> None:
        (self.scratch / "file").write_text("")
        for name, changes in [
                ("state", {"state": str(self.scratch / "file" / "state")}),
                ("state", {"state": str(self.scratch / "file")}),
                ("state", {"state": "/proc/chimera"}),
                ("serve.endpoint", {"serve": {"endpoint": f"ipc://{self.scratch}/file/serve"}}),
                ("serve.endpoint", {"serve": {"endpoint": f"ipc://{self.scratch}/file"}}),
                ("control.endpoint", {"control": {"endpoint": "ipc:///proc/chimera/control"}})]:
            with self.subTest(changes):
                done = self.check(**changes)
                self.assertEqual(done.returncode, 1)
                self.assertIn(f"{name}: ", done.stderr)

    def test_a_module_that_would_be_left_out_is_a_problem(self) -> None:
        done = self.check(composition={"modules": [{"path": str(SOURCE / "experts" / "legal")}]})
        self.assertEqual(done.returncode, 1)
        self.assertIn("composition.modules[0]: module legal: found backbone fingerprint",
                      done.stderr)

    def test_a_context_that_the_model_caps_is_told(self) -> None:
        asked = {"endpoint": f"ipc://{self.scratch}/serve", "max_context": 100_000}
        self.assertRegex(self.check(serve=asked).stdout,
                         r"(?m)^context +4096 tokens: .*serve\.max_context is 100000")
        with Daemon(CHECKPOINT, serve={"max_context": 100_000}) as daemon, \
                daemon.client() as client:
            self.assertIn("context_limited_by_model", daemon.log_text())
            with self.assertRaises(chimera_client.ChimeraError) as caught:
                client.score(tokens=[5] * 5000)
            self.assertIn("the model's context", str(caught.exception))
            self.assertNotIn("raise serve.max_context", str(caught.exception))


class Templates(Scratch):
    """The collection's rows about chat templates, over the wire."""

    TEMPLATE = """{%- for message in messages %}{% for call in message.tool_calls %}
{%- set given = call.function.arguments %}{{ given.n }}|{{ given["m"] }}|{{ given|tojson }}
{%- endfor %}{% endfor %} {{ [none, none]|sort }} {{ [{"a": 1}, {"a": 1}]|sort }} {{ tools|sort(attribute="x") }}"""
    ARGUMENTS = {"n": 18446744073709551616, "m": -9223372036854775809}

    def test_large_integers_equal_items_and_arguments_in_a_string(self) -> None:
        checkpoint = self.scratch / "model"
        shutil.copytree(GOLDEN / "flex_olmo_f32", checkpoint,
                        ignore=shutil.ignore_patterns("alt_configs"))
        shutil.copy(GOLDEN / "tiny312_tokenizer.json", checkpoint / "tokenizer.json")
        (checkpoint / "chat_template.jinja").write_text(self.TEMPLATE)
        text = json.dumps(self.ARGUMENTS)
        expected = f"{self.ARGUMENTS['n']}|{self.ARGUMENTS['m']}|{text} " \
                   "[None, None] [{'a': 1}, {'a': 1}] [{}, {}]"
        with Daemon(checkpoint) as daemon, daemon.client() as client:
            for arguments in (self.ARGUMENTS, text):
                with self.subTest(arguments=arguments):
                    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
                    rendered, _ = client.render_chat(
                        [{"role": "user", "content": "x"},
                         {"role": "assistant", "tool_calls": [call]}], tools=[{}, {}])
                    self.assertEqual(rendered, expected)


class Scout(Scratch):
    """Llama 4 Scout as released: no band between its high and its low frequencies. The golden
    llama4_scout says so in every precision; this is the input that was refused."""

    @unittest.skipUnless(CASES.exists(), f"{CASES} is absent")
    def test_the_collected_case_has_the_references_logits(self) -> None:
        checkpoint = CASES / "llama4-scout-rope" / "ckpt"
        with Daemon(checkpoint, precision="f32") as daemon, daemon.client() as client:
            last = client.score(tokens=list(range(3, 60)), logits=True).logits[-1]
            for found, expected in zip(last, [-0.8935, 4.4902, 2.3348, 2.2076]):
                self.assertAlmostEqual(found, expected, places=3)


class KimiK2(Scratch):
    """deepseek_v3 by its vendor's word; only model_type differs."""

    def test_it_has_the_bits_of_deepseek_v3(self) -> None:
        source = GOLDEN / "families" / "deepseek_v3_direct"
        target = self.scratch / "kimi"
        shutil.copytree(source, target)
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").chmod(0o644)
        (target / "config.json").write_text(json.dumps({**config, "model_type": "kimi_k2"}))
        both = []
        for checkpoint in (source, target):
            with Daemon(checkpoint) as daemon, daemon.client() as client:
                both.append(flat(client.score(tokens=list(range(3, 40)), logits=True).logits))
        self.assertEqual(both[0], both[1])


if __name__ == "__main__":
    unittest.main()
