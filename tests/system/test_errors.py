"""Wrong input of every kind: one error that names the thing, what was found, what was expected and
what to do; nothing else changes and the daemon serves on."""
import json
import re
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

import zmq
from harness import BIN, GOLDEN, Daemon, chimera_client, run, split


def rewrite_f32(path: Path, value: float) -> None:
    """Overwrites the first element of the first F32 expert tensor."""
    raw = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + length])
    name = next(n for n in header if "experts" in n)
    struct.pack_into("<f", raw, 8 + length + header[name]["data_offsets"][0], value)
    path.write_bytes(raw)


def reseal(module: Path) -> None:
    """Puts the digests of the files as they are into module.yaml."""
    import hashlib
    digest = hashlib.sha256((module / "weights.safetensors").read_bytes()).hexdigest()
    manifest = module / "module.yaml"
    manifest.write_text(re.sub(r"(sha256: *\"?)sha256:[0-9a-f]+", rf"\g<1>sha256:{digest}",
                               manifest.read_text()))


class Errors(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = Path(tempfile.mkdtemp(prefix="chimera-errors-"))
        cls.parts = split(GOLDEN / "flex_olmo_f32", cls.scratch, a="4", b="5", c="6")
        cls.daemon = Daemon(cls.parts / "backbone",
                            modules=[{"path": str(cls.parts / "modules" / "a")}])
        cls.client = cls.daemon.client()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.client.close()
        cls.daemon.__exit__(None, None, None)
        shutil.rmtree(cls.scratch, ignore_errors=True)

    def copy_of(self, module: str, name: str) -> Path:
        target = self.scratch / name
        shutil.copytree(self.parts / "modules" / module, target)
        return target

    def refused(self, kind, path: Path, *words: str) -> None:
        """Loading fails with `kind`, says the words and a hint, and changes nothing."""
        state = self.client.health()["epoch"], self.client.modules()
        with self.assertRaises(kind) as caught:
            self.client.load(path)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertTrue(caught.exception.hint, f"no hint in: {caught.exception}")
        self.assertEqual((self.client.health()["epoch"], self.client.modules()), state)

    # --- modules -----------------------------------------------------------------------------
    def test_missing_module(self) -> None:
        self.refused(chimera_client.NotFound, self.scratch / "nowhere", "module.yaml")

    def test_wrong_fingerprint(self) -> None:
        module = self.copy_of("b", "fingerprint")
        manifest = module / "module.yaml"
        manifest.write_text(re.sub(r"(fingerprint: *\"?sha256:)[0-9a-f]{8}", r"\g<1>00000000",
                                   manifest.read_text()))
        self.refused(chimera_client.FailedPrecondition, module, "fingerprint", "sha256:00000000")

    def test_wrong_shapes(self) -> None:
        module = self.copy_of("b", "shapes")
        weights = module / "weights.safetensors"
        raw = weights.read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        header = json.loads(raw[8:8 + length])
        name = next(n for n in header if n.endswith("gate_proj.weight"))
        header[name]["shape"] = header[name]["shape"][::-1]
        text = json.dumps(header).encode()
        weights.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length:])
        reseal(module)
        self.refused(chimera_client.ChimeraError, module, name, "expected")

    def test_corrupt_digest(self) -> None:
        module = self.copy_of("b", "digest")
        rewrite_f32(module / "weights.safetensors", 0.5)
        self.refused(chimera_client.DataCorrupt, module, "weights.safetensors", "sha256")

    def test_nan_weights(self) -> None:
        module = self.copy_of("b", "nan")
        rewrite_f32(module / "weights.safetensors", float("nan"))
        reseal(module)
        self.refused(chimera_client.DataCorrupt, module, "experts")

    def test_unknown_manifest_keys_all_at_once(self) -> None:
        module = self.copy_of("b", "keys")
        with (module / "module.yaml").open("a") as manifest:
            manifest.write("flavour: sweet\nlayer: all\n")
        self.refused(chimera_client.InvalidArgument, module, "flavour", "layer", "module.yaml:")

    def test_unknown_module(self) -> None:
        for call in (self.client.unload, self.client.revoke):
            with self.assertRaises(chimera_client.NotFound) as caught:
                call("nobody")
            self.assertIn("nobody", str(caught.exception))
        with self.assertRaises(chimera_client.NotFound):
            self.client.complete(tokens=[1], max_tokens=1, modules={"only": ["nobody"]})

    def test_duplicate_name_in_a_composition(self) -> None:
        twice = {"modules": [{"path": str(self.parts / "modules" / "b")},
                             {"path": str(self.parts / "modules" / "b")}]}
        state = self.client.health()["epoch"]
        with self.assertRaises(chimera_client.ChimeraError) as caught:
            self.client.apply(twice)
        self.assertIn("b", str(caught.exception))
        self.assertEqual(self.client.health()["epoch"], state)

    def test_plan_lists_refusals_and_touches_nothing(self) -> None:
        state = self.client.health()["epoch"]
        report = self.client.plan({"modules": [{"path": str(self.scratch / "nowhere")}]})
        self.assertFalse(report["accepted"])
        self.assertTrue(report["refusals"][0]["message"])
        self.assertEqual(self.client.health()["epoch"], state)

    # --- daemon ------------------------------------------------------------------------------
    def config_error(self, text: str) -> str:
        path = self.scratch / "bad.yaml"
        path.write_text(text)
        done = run("chimerad", "--config", path, "--check", check=False)
        self.assertNotEqual(done.returncode, 0)
        return done.stderr

    def test_wrong_config_names_every_line(self) -> None:
        error = self.config_error("chimera: deployment/1\nbackbone:\n  path: x\n  precison: f32\n"
                                  "serve:\n  max_sequences: 0\n")
        self.assertIn("bad.yaml:4:", error)
        self.assertIn("precison", error)
        self.assertIn("bad.yaml:6:", error)
        self.assertIn("max_sequences", error)

    def test_missing_backbone(self) -> None:
        error = self.config_error("chimera: deployment/1\nbackbone:\n  path: nowhere\n")
        self.assertIn("nowhere", error)
        self.assertIn("chimera", error)

    def test_second_daemon_on_the_socket(self) -> None:
        with tempfile.TemporaryDirectory() as other:
            config = json.loads(self.daemon.config.read_text())
            config["state"] = other + "/state"
            path = Path(other) / "second.yaml"
            path.write_text(json.dumps(config))
            done = run("chimerad", "--config", path, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("serve.sock", done.stderr)
        self.assertEqual(self.client.health()["status"], "ok")

    def test_second_daemon_on_the_state(self) -> None:
        config = json.loads(self.daemon.config.read_text())
        with tempfile.TemporaryDirectory() as other:
            config["serve"]["endpoint"] = f"ipc://{other}/s"
            config["control"]["endpoint"] = f"ipc://{other}/c"
            path = Path(other) / "second.yaml"
            path.write_text(json.dumps(config))
            done = run("chimerad", "--config", path, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("state", done.stderr)

    # --- wire --------------------------------------------------------------------------------
    def raw(self, *frames: bytes) -> dict:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(self.daemon.serve_endpoint)
        try:
            socket.send_multipart(list(frames))
            self.assertTrue(socket.poll(60_000), f"no answer to {frames!r}")
            magic, body = socket.recv_multipart()[:2]
            self.assertEqual(magic, b"CHIMERA/1")
            return json.loads(body)
        finally:
            socket.close()
            context.term()

    def test_malformed_messages_get_one_error(self) -> None:
        bad = [
            (b"CHIMERA/2", b"{}"), (b"CHIMERA/1", b""), (b"CHIMERA/1", b"{"), (b"CHIMERA/1", b"[]"),
            (b"CHIMERA/1", b'{"id":"x"}'), (b"CHIMERA/1", b'{"id":"x","call":"fly"}'),
            (b"CHIMERA/1", b'{"id":"x","call":"health","id":"y"}'),
            (b"CHIMERA/1", b'{"id":"x","call":"generate","tokens":[1],"max_tokens":0}'),
            (b"CHIMERA/1", b'{"id":"x","call":"generate","tokens":[1],"top_p":2}'),
            (b"CHIMERA/1", b'{"id":"x","call":"generate","tokens":[99999]}'),
            (b"CHIMERA/1", b'{"id":"x","call":"generate","tokens":[1],"wat":1}'),
            (b"CHIMERA/1", b'{"id":"x","call":"generate","prompt":"text"}'),  # no tokenizer
            (b"CHIMERA/1", b'{"id":"x","call":"unload","name":"a"}'),  # a control call
            (b"CHIMERA/1", b"[" * 5000), (b"CHIMERA/1", b'{"id":"\xff","call":"health"}'),
        ]
        for frames in bad:
            with self.subTest(frames=frames):
                answer = self.raw(*frames)
                self.assertEqual(answer["event"], "error")
                self.assertTrue(answer["code"] and answer["message"])
        self.assertEqual(self.client.health()["status"], "ok")

    def test_oversized_message_does_not_hurt(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(self.daemon.serve_endpoint)
        socket.send_multipart([b"CHIMERA/1", b" " * (5 << 20)])
        socket.poll(500)
        socket.close()
        context.term()
        self.assertEqual(self.client.health()["status"], "ok")

    # --- command line ------------------------------------------------------------------------
    def test_no_daemon(self) -> None:
        done = run("chimera", "--endpoint", f"ipc://{self.scratch}/none.sock", "health", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr.startswith("chimera: "), done.stderr)
        self.assertIn("none.sock", done.stderr)
        self.assertIn("chimerad", done.stderr)

    def test_command_line_errors_exit_non_zero(self) -> None:
        for args in (["unload", "nobody"], ["fly"], ["load", str(self.scratch / "nowhere")],
                     ["rollback", "999"], ["routing", "--layer", "99"]):
            with self.subTest(args=args):
                done = self.daemon.cli(*args, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertTrue(done.stderr.strip())


class FullStateDisk(unittest.TestCase):
    """A state directory on a full file system; needs the right to mount a tmpfs."""

    def test_refused_and_nothing_changes(self) -> None:
        with tempfile.TemporaryDirectory(prefix="chimera-full-") as scratch:
            state = Path(scratch) / "state"
            state.mkdir()
            mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", state],
                                     capture_output=True, text=True)
            if mounted.returncode != 0:
                self.skipTest(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
            try:
                self.check(Path(scratch), state)
            finally:
                subprocess.run(["umount", "-l", state], check=True)

    def check(self, scratch: Path, state: Path) -> None:
        parts = split(GOLDEN / "flex_olmo_f32", scratch / "parts", a="4")
        with Daemon(parts / "backbone", work=scratch) as daemon, daemon.client() as client:
            epoch = client.health()["epoch"]
            with (state / "ballast").open("wb", buffering=0) as ballast:
                try:
                    while ballast.write(b"x" * 512):
                        pass
                except OSError:
                    pass
            with self.assertRaises(chimera_client.ResourceExhausted) as caught:
                client.load(parts / "modules" / "a")
            self.assertIn("space", str(caught.exception))
            self.assertEqual(client.health()["epoch"], epoch)
            self.assertEqual(client.modules(), [])
            (state / "ballast").unlink()
            client.load(parts / "modules" / "a")


if __name__ == "__main__":
    assert BIN.is_dir(), BIN
    unittest.main()
