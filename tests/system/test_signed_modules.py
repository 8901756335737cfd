"""Modules that a deployment lets in: signed by whom it trusts, new enough, where nobody else writes."""
from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import harness
from harness import GOLDEN, Daemon, chimera_client, run, split, wait_for

BACKBONE_OF = GOLDEN / "flex_olmo_f32"
FILES = ["module.yaml", "module.yaml.minisig", "weights.safetensors"]


class SignedModules(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.work = Path(tempfile.mkdtemp(prefix="chimera-signed-"))
        cls.addClassCleanup(shutil.rmtree, cls.work, ignore_errors=True)
        split(BACKBONE_OF, cls.work, legal="4", bio="5")
        cls.backbone = cls.work / "backbone"
        cls.keys = cls.work / "keys"
        for name in ("owner", "stranger"):
            run("chimera", "key", "new", name, "--for", "modules", "--out", cls.work / "secret")
        (cls.keys / "revoked").mkdir(parents=True)
        shutil.copy(cls.work / "secret" / "owner.pub", cls.keys)

    def module(self, name: str, key: str = "", *options: str) -> Path:
        """A copy of a module, signed by that key."""
        copy = Path(tempfile.mkdtemp(dir=self.work)) / name
        shutil.copytree(self.work / "modules" / name, copy)
        if key:
            run("chimera", "module", "sign", copy, "--key", self.work / "secret" / f"{key}.key", *options)
        return copy

    def daemon(self, **options) -> Daemon:
        trust = {"keys": str(self.keys), "require": "signed", **options.pop("trust", {})}
        return Daemon(self.backbone, trust=trust, **options)

    def refused(self, client: chimera_client.Client, module: Path, why: str) -> None:
        with self.assertRaises(chimera_client.ChimeraError) as raised:
            client.load(str(module))
        self.assertEqual(raised.exception.code, "permission_denied", raised.exception)
        self.assertIn(f"module {module.name}", str(raised.exception))
        self.assertIn(why, str(raised.exception))

    def mapped(self, daemon: Daemon, module: Path) -> bool:
        return str(module) in Path(f"/proc/{daemon.pid}/maps").read_text()

    def test_signed_ones_are_let_in_and_others_refused_by_name(self) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            before = client.modules()
            for module, why in ((self.module("legal"), "not signed"),
                                (self.module("legal", "stranger"), "unknown key"),
                                (self.module("legal", "owner", "--expires", "2001-01-01"), "has expired")):
                self.refused(client, module, why)
                self.assertFalse(self.mapped(daemon, module))
            changed = self.module("legal", "owner")
            text = (changed / "module.yaml").read_text()
            (changed / "module.yaml").write_text(text + "# mine\n")
            self.refused(client, changed, "of another content")
            self.assertEqual(client.modules(), before)
            client.load(str(self.module("legal", "owner")))
            client.load(str(self.module("bio", "owner", "--expires", "2999-12-31")))
            self.assertEqual([m["name"] for m in client.modules()], ["legal", "bio"])
            # Refusals are in the record.
            refusals = [e for e in client.audit() if e["result"] == "permission_denied"]
            self.assertEqual(len(refusals), 4)

    def test_a_start_leaves_others_out_and_says_so(self) -> None:
        module, signed = self.module("legal"), self.module("bio", "owner")
        with self.daemon(modules=[{"path": str(module)}, {"path": str(signed)}]) as daemon, \
                daemon.client() as client:
            self.assertEqual([m["name"] for m in client.modules()], ["bio"])
            self.assertFalse(self.mapped(daemon, module))
            self.assertRegex(daemon.log_text(), "module_left_out.*module legal.*not signed")
            # The same composition by other ways.
            with self.assertRaises(chimera_client.ChimeraError) as raised:
                client.apply({"modules": [{"path": str(module)}]})
            self.assertIn("not signed", str(raised.exception))

    def test_a_key_that_is_revoked_while_it_serves(self) -> None:
        keys = self.work / "keys-2"
        shutil.copytree(self.keys, keys)
        with self.daemon(trust={"keys": str(keys)}) as daemon, daemon.client() as client:
            client.load(str(self.module("legal", "owner")))
            (keys / "owner.pub").rename(keys / "revoked" / "owner.pub")
            daemon.process.send_signal(harness.signal.SIGHUP)
            wait_for(lambda: "reloaded" in daemon.log_text(), "the deployment is read again")
            self.refused(client, self.module("bio", "owner"), "revoked key")

    def test_older_ones_and_other_places(self) -> None:
        legal, bio = self.module("legal", "owner"), self.module("bio", "owner")
        version = re.search(r"^version: \"?([0-9.]+)", (legal / "module.yaml").read_text(), re.M).group(1)
        major = int(version.split(".")[0])
        with self.daemon(trust={"minimum": {"legal": f"{major + 1}.0.0"}, "roots": [str(bio.parent)]}) \
                as daemon, daemon.client() as client:
            inside = bio.parent / "legal"
            shutil.copytree(legal, inside)
            self.refused(client, inside, "too old")
            self.refused(client, self.module("bio", "owner"), "not under")
            os.symlink(self.module("bio", "owner"), bio.parent / "link")
            with self.assertRaises(chimera_client.ChimeraError):
                client.load(str(bio.parent / "link"))
            client.load(str(bio))

    def test_places_that_everybody_can_write(self) -> None:
        with Daemon(self.backbone) as daemon, daemon.client() as client:
            module = self.module("legal")
            module.chmod(0o777)
            self.refused(client, module, "mode 0777")
            module.chmod(0o755)
            module.parent.chmod(0o757)
            self.refused(client, module, "mode 0757")
            module.parent.chmod(0o755)
            client.load(str(module))
        for place in ("state", "watch"):
            with tempfile.TemporaryDirectory() as open_to_all:
                daemon = Daemon(self.backbone, start=False, work=Path(open_to_all),
                                watch=[f"{open_to_all}/watch"])
                for name in ("state", "watch"):
                    (Path(open_to_all) / name).mkdir()
                (Path(open_to_all) / place).chmod(0o777)
                daemon.start(wait=False)
                self.assertNotEqual(daemon.process.wait(60 * harness.SLOW), 0)
                self.assertIn("mode 0777", daemon.log_text())

    def test_bits_flipped_over_the_wire(self) -> None:
        module = self.module("legal", "owner")
        random.seed(16)
        with self.daemon() as daemon, daemon.client() as client:
            for name in FILES:
                path = module / name
                good = path.read_bytes()
                count = min(len(good), 40)
                for at in random.sample(range(len(good)), count):
                    bad = bytearray(good)
                    bad[at] ^= 1 << random.randrange(8)
                    path.write_bytes(bad)
                    with self.assertRaises(chimera_client.ChimeraError, msg=f"{name} byte {at}"):
                        client.load(str(module))
                path.write_bytes(good)
            self.assertEqual(client.modules(), [])
            client.load(str(module))

    def test_minisign_verifies_and_signs_too(self) -> None:
        module = self.module("legal", "owner")
        public = self.work / "secret" / "owner.pub"
        verify = ["minisign", "-V", "-p", str(public), "-m", str(module / "module.yaml")]
        said = subprocess.run(verify, capture_output=True, text=True, check=True).stdout
        self.assertIn("module:legal", said)
        run("chimera", "module", "verify", module, "--key", public)
        theirs = self.module("bio")
        subprocess.run(["minisign", "-S", "-s", str(self.work / "secret" / "owner.key"), "-m",
                        str(theirs / "module.yaml")], check=True, capture_output=True)
        with self.daemon() as daemon, daemon.client() as client:
            client.load(str(theirs))
        (module / "module.yaml").write_text("")
        self.assertNotEqual(subprocess.run(verify, capture_output=True).returncode, 0)
        self.assertNotEqual(run("chimera", "module", "verify", module, "--key", public, check=False)
                            .returncode, 0)


if __name__ == "__main__":
    unittest.main()
