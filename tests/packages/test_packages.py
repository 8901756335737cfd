"""The Debian packages, built from the build tree: what is in them, what they need, and that the
daemon and the gateway serve out of them, configured as they come. (`scripts/package --test` installs
them in a root of its own.)

Environment: CHIMERA_BUILD, the build directory."""
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import unittest
import urllib.request

import jsonschema
import yaml

BUILD = pathlib.Path(os.environ["CHIMERA_BUILD"])
SOURCE = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["chimera", "chimera-demo", "chimera-plugin-dev", "libchimera-client-dev",
            "python3-chimera-client"]
PROGRAMS = ["chimera", "chimera-gateway", "chimera-module", "chimera-plugin-check",
            "chimera-plugin-host", "chimerad"]
# The highest exposure that `systemd-analyze security` may find, in tenths: 0 is safe, 100 is not.
MOST_EXPOSED = 15
PATIENCE = 60


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                          timeout=300, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def project_version():
    text = (SOURCE / "CMakeLists.txt").read_text()
    return re.search(r"project\(chimera VERSION ([\d.]+)", text).group(1)


class Service:
    """A program out of the package as its unit starts it: it has told that it is ready."""

    def __init__(self, work, *command):
        path = work / "notify"
        path.unlink(missing_ok=True)
        self.log = work / (pathlib.Path(command[0]).name + ".log")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, self.log.open("w") as log:
            listener.bind(str(path))
            listener.settimeout(PATIENCE)
            self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log,
                                            env={**os.environ, "NOTIFY_SOCKET": str(path)})
            try:
                told = listener.recv(100)
            except TimeoutError:
                self.process.kill()
                raise AssertionError(f"not ready\n{self.log.read_text()}") from None
            assert told == b"READY=1", told

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="chimera-packages-"))
        cls.addClassCleanup(shutil.rmtree, cls.work)
        # Not compressed: weights would take minutes.
        run("cpack", "--config", BUILD / "CPackConfig.cmake", "-G", "DEB", "-B", cls.work / "stage",
            "-D", "CPACK_DEBIAN_COMPRESSION_TYPE=none",
            "-D", f"CPACK_OUTPUT_FILE_PREFIX={cls.work}/debs", cwd=cls.work)
        cls.version = project_version()
        cls.files, cls.fields, cls.control, cls.root = {}, {}, {}, {}
        for deb in (cls.work / "debs").glob("*.deb"):
            name = deb.name.split("_")[0]
            cls.files[name] = [line.split()[-1][1:] for line in run("dpkg-deb", "-c", deb).splitlines()
                               if not line.startswith("d")]
            cls.fields[name] = dict(re.findall(r"^(\S+): (.*)$", run("dpkg-deb", "-f", deb), re.M))
            cls.control[name] = cls.work / "control" / name
            cls.root[name] = cls.work / "root" / name
            for option, folder in [("-e", cls.control[name]), ("-x", cls.root[name])]:
                folder.parent.mkdir(exist_ok=True)
                run("dpkg-deb", option, deb, folder)

    def depends(self, name):
        return re.findall(r"[a-z0-9][a-z0-9+.-]+", re.sub(r"\(.*?\)", "", self.fields[name].get("Depends", "")))

    def test_every_package_has_the_one_version(self):
        self.assertEqual(sorted(self.fields), PACKAGES)
        for name, fields in self.fields.items():
            self.assertEqual((fields["Package"], fields["Version"]), (name, self.version))
            of_all = name in ("chimera-demo", "python3-chimera-client")
            self.assertEqual(fields["Architecture"] == "all", of_all, name)

    def test_every_package_has_copyright_and_changelog(self):
        for name in PACKAGES:
            for file in ["copyright", "changelog.gz"]:
                self.assertIn(f"/usr/share/doc/{name}/{file}", self.files[name])

    def test_no_file_is_in_two_packages_or_may_be_written_by_others(self):
        every = [file for files in self.files.values() for file in files]
        self.assertEqual(len(every), len(set(every)))
        for root in self.root.values():
            for path in root.rglob("*"):
                self.assertEqual(path.stat().st_mode & 0o022, 0, path)
        for files in self.files.values():
            for file in files:
                self.assertRegex(file, r"^/(etc/chimera|lib/systemd/system|usr)/")

    def test_programs_have_manual_pages_and_completion_for_three_shells(self):
        share = "/usr/share/"
        for program in PROGRAMS:
            self.assertIn(f"/usr/bin/{program}", self.files["chimera"])
            page = re.compile(rf"{share}man/man([18])/{program}\.\1\.gz")
            self.assertTrue(any(map(page.fullmatch, self.files["chimera"])), program)
            for file in [f"bash-completion/completions/{program}", f"zsh/vendor-completions/_{program}",
                         f"fish/vendor_completions.d/{program}.fish"]:
                self.assertIn(share + file, self.files["chimera"])

    def test_needed_libraries_are_depended_on(self):
        needed = set()
        for program in PROGRAMS:
            path = self.root["chimera"] / "usr/bin" / program
            told = run("readelf", "-dW", path)
            self.assertNotRegex(told, "RUNPATH|RPATH", program)
            needed |= set(re.findall(r"NEEDED\).*\[(.*)\]", told))
        # The loader says which file each of them is.
        places = dict(line for program in PROGRAMS for line in re.findall(
            r"^\t(\S+) => (\S+) \(", run("ldd", self.root["chimera"] / "usr/bin" / program), re.M))
        found = {places[library] for library in needed if library in places}
        self.assertIn("libzmq.so.5", {pathlib.Path(path).name for path in found})
        patterns = ["*" + path for path in sorted(found)]  # dpkg may know /lib as /usr/lib
        owners = {line.split(":")[0] for line in run("dpkg", "-S", *patterns).splitlines()}
        listed = run("dpkg-query", "-W", "-f=${Package} ${Provides}\n", *owners).splitlines()
        depends = set(self.depends("chimera"))
        for line in listed:
            names = set(re.findall(r"[a-z0-9][a-z0-9+.-]+", re.sub(r"\(.*?\)", "", line)))
            self.assertTrue(names & depends, f"{line} (expected one of {sorted(depends)})")

    def test_developers_get_what_the_headers_and_archives_need(self):
        self.assertEqual(set(self.depends("libchimera-client-dev")),
                         {"chimera-plugin-dev", "libfmt-dev", "nlohmann-json3-dev", "libssl-dev",
                          "libsodium-dev", "libzmq3-dev"})
        self.assertIn(f"chimera-plugin-dev (= {self.version})", self.fields["libchimera-client-dev"]["Depends"])
        for file in ["/usr/share/pkgconfig/chimera-plugin.pc", "/usr/include/chimera/expert.h"]:
            self.assertIn(file, self.files["chimera-plugin-dev"])

    def test_configuration_belongs_to_the_administrator(self):
        listed = (self.control["chimera"] / "conffiles").read_text().split()
        self.assertEqual(sorted(listed), sorted(f for f in self.files["chimera"] if f.startswith("/etc/")))
        for name in PACKAGES[1:]:
            self.assertFalse((self.control[name] / "conffiles").exists())

    def test_maintainer_scripts_are_shell_that_ends_at_the_first_failure(self):
        scripts = [s for c in self.control.values() for s in c.iterdir() if s.name in
                   ("preinst", "postinst", "prerm", "postrm")]
        self.assertEqual(len(scripts), 5)
        for script in scripts:
            run("sh", "-n", script)
            self.assertTrue(script.read_text().startswith("#!/bin/sh\nset -e\n"), script)

    def test_configuration_fits_the_schemas(self):
        for name, schema in [("chimerad", "deployment"), ("gateway", "gateway")]:
            configured = yaml.safe_load((self.root["chimera"] / f"etc/chimera/{name}.yaml").read_text())
            shipped = self.root["chimera"] / f"usr/share/chimera/{schema}.schema.json"
            jsonschema.validate(configured, json.loads(shipped.read_text()))

    def test_units_expose_little(self):
        if shutil.which("systemd-analyze") is None:
            print("exposure of the units: not looked at, systemd-analyze is not installed")
            return
        for unit in ["chimerad", "chimera-gateway"]:
            run("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}",
                self.root["chimera"] / f"lib/systemd/system/{unit}.service")

    def test_metadata_of_the_python_client_is_that_of_its_project(self):
        project = tomllib.loads((SOURCE / "clients/python/pyproject.toml").read_text())["project"]
        path, = self.root["python3-chimera-client"].glob("usr/lib/python3/dist-packages/*.dist-info/METADATA")
        self.assertEqual(path.read_text().splitlines(), [
            "Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {self.version}",
            f"Summary: {project['description']}", f"License: {project['license']['text']}",
            f"Requires-Python: {project['requires-python']}",
            f"Requires-Dist: {project['dependencies'][0]}"])
        self.assertEqual(len(project["dependencies"]), 1)
        minimum = project["dependencies"][0].removeprefix("pyzmq>=")
        self.assertIn(f"python3-zmq (>= {minimum})", self.fields["python3-chimera-client"]["Depends"])

    def test_the_python_client_is_installed_by_pip_from_its_folder(self):
        folder = self.work / "client"  # setuptools builds in the folder itself
        shutil.copytree(SOURCE / "clients/python", folder, ignore=shutil.ignore_patterns("__pycache__"))
        run(sys.executable, "-m", "pip", "install", "--no-index", "--no-build-isolation", "--prefix",
            self.work / "pip", folder, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        place, = glob.glob(f"{self.work}/pip/**/chimera_client", recursive=True)
        code = ("import importlib.metadata as m, chimera_client as c; "
                "print(m.version('chimera-client'), c.__version__, c.__file__)")
        told = run(sys.executable, "-c", code, env={**os.environ, "PYTHONPATH": os.path.dirname(place)})
        self.assertEqual(told.split(), [self.version, self.version, f"{place}/__init__.py"])

    def test_daemon_and_gateway_serve_the_demo_out_of_the_packages(self):
        # The configuration as it comes, but for the places: this test owns no /run and no port.
        packed = self.root["chimera"]
        places = {"/usr/share/chimera/demo": self.root["chimera-demo"] / "usr/share/chimera/demo",
                  "/etc/chimera": self.work / "etc", "/run/chimera": self.work / "run",
                  "/var/lib/chimera": self.work / "state", "127.0.0.1:8080": "127.0.0.1:0"}
        shutil.copytree(packed / "etc/chimera", self.work / "etc")
        for file in (self.work / "etc").rglob("*.yaml"):
            text = file.read_text()
            for place, here in places.items():
                text = text.replace(place, str(here))
            file.write_text(text)
        daemon = Service(self.work, packed / "usr/bin/chimerad", "--config", self.work / "etc/chimerad.yaml")
        self.addCleanup(daemon.process.kill)
        code = ("import chimera_client as c\n"
                f"client = c.Client(serve='ipc://{self.work}/run/serve.sock',"
                f" control='ipc://{self.work}/run/control.sock')\n"
                "print(sorted(row['name'] for row in client.modules()))")
        client = self.root["python3-chimera-client"] / "usr/lib/python3/dist-packages"
        told = run(sys.executable, "-c", code, env={**os.environ, "PYTHONPATH": str(client)})
        self.assertEqual(told.strip(), "['bio', 'finance', 'legal']")
        gateway = Service(self.work, packed / "usr/bin/chimera-gateway", "--config", self.work / "etc/gateway.yaml")
        self.addCleanup(gateway.process.kill)
        key = (self.work / "state-gateway/admin.key").read_text().strip()
        request = urllib.request.Request(
            re.search(r"^http://[\d.:]+/", gateway.log.read_text(), re.M)[0] + "v1/completions", json.dumps(
                {"model": "demo:legal", "prompt": "The Borrower shall", "max_tokens": 4}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            self.assertEqual(json.load(answer)["usage"]["completion_tokens"], 4)
        gateway.stop()
        daemon.stop()


if __name__ == "__main__":
    unittest.main()
