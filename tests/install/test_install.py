"""What `cmake --install` leaves is enough: programs with their manual pages and completion, and
packages against which a client and a plugin are built outside of the tree.

Environment: CHIMERA_BUILD, the build directory."""
import glob
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = os.environ["CHIMERA_BUILD"]
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = ["chimera", "chimera-gateway", "chimera-module", "chimera-plugin-check",
            "chimera-plugin-host", "chimerad"]

CLIENT = {
    "CMakeLists.txt": """
cmake_minimum_required(VERSION 3.18)
project(ask VERSION 1.0 LANGUAGES CXX)
find_package(ChimeraClient {version} CONFIG REQUIRED)
add_executable(ask ask.cc)
target_compile_features(ask PRIVATE cxx_std_20)
target_link_libraries(ask PRIVATE Chimera::client)
""",
    "ask.cc": """
#include <chimera_client/client.h>
#include <cstdio>

int main(int argc, char** argv) {
  chimera::client::Options options;
  options.control = argc > 1 ? argv[1] : "ipc:///nowhere/control.sock";
  options.connect_timeout = chimera::client::Milliseconds(200);
  chimera::client::Client client(options);
  const auto answer = client.call(chimera::wire::Modules{});
  std::puts(answer.ok() ? "answered" : answer.error().code.c_str());
}
""",
}
# What a user of zsh has, with the files of the test; each offer is a line of a file, END comes last.
ZSH = """
fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D; bindkey '^I' complete-word; PROMPT=
compadd() {{
  if [[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
  local -a hits
  builtin compadd -A hits "$@"
  [[ -z $hits ]] || print -rl -- $hits >>{offers}
  builtin compadd "$@"
}}
_end_of_offers() {{ print END >>{offers} }}
comppostfuncs=(_end_of_offers)
"""
PLUGIN = {
    "CMakeLists.txt": """
cmake_minimum_required(VERSION 3.18)
project(plugin VERSION 1.0 LANGUAGES C)
find_package(ChimeraPlugin {version} CONFIG REQUIRED)
add_library(plugin MODULE plugin.c)
target_link_libraries(plugin PRIVATE Chimera::plugin_api)
""",
    "plugin.c": """
#include <chimera/services.h>
int abi(void) { return CHIMERA_ABI_MAJOR; }
""",
}


def run(*command, **options):
    done = subprocess.run(command, text=True, capture_output=True, timeout=300, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def project_version():
    with open(os.path.join(SOURCE, "CMakeLists.txt"), encoding="utf-8") as text:
        return re.search(r"project\(chimera VERSION ([\d.]+)", text.read()).group(1)


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.work)
        cls.destdir = os.path.join(cls.work, "staging")
        run("cmake", "--install", BUILD, "--prefix", "/opt/chimera",
            env=dict(os.environ, DESTDIR=cls.destdir))
        cls.prefix = cls.destdir + "/opt/chimera"
        cls.version = project_version()

    def build(self, name, files):
        folder = os.path.join(self.work, name)
        os.mkdir(folder)
        for file, text in files.items():
            with open(os.path.join(folder, file), "w", encoding="utf-8") as out:
                out.write(text.replace("{version}", self.version))
        run("cmake", "-S", folder, "-B", folder + "/build", f"-DCMAKE_PREFIX_PATH={self.prefix}",
            "-DCMAKE_FIND_PACKAGE_NO_PACKAGE_REGISTRY=ON")
        run("cmake", "--build", folder + "/build")
        return folder + "/build"

    def complete(self, *words):
        """What bash offers for the last of `words`, of the program words[0]."""
        script = f"{self.prefix}/share/bash-completion/completions/{words[0]}"
        function = "_" + words[0].replace("-", "_")
        code = ('source "$1"; shift; complete -p "$1" >/dev/null || exit 1; COMP_WORDS=("$@"); '
                f'COMP_CWORD=$(($# - 1)); {function}; printf "%s\\n" "${{COMPREPLY[@]}}"')
        return run("bash", "-uc", code, "bash", script, *words, cwd=self.prefix).splitlines()

    def complete_in_fish(self, line):
        scripts = f"{self.prefix}/share/fish/vendor_completions.d/*.fish"
        told = run("fish", "--no-config", "-c", f"for script in {scripts}; source $script; end; complete -C '{line}'",
                   cwd=self.prefix)
        return [offer.split("\t")[0] for offer in told.splitlines()]

    def complete_in_zsh(self, line):
        """zsh completes at a terminal only; what it would add to the list goes to a file instead."""
        home = tempfile.mkdtemp(dir=self.work)
        with open(home + "/.zshrc", "w", encoding="utf-8") as out:
            out.write(ZSH.format(folder=self.prefix + "/share/zsh/site-functions", offers=home + "/offers"))
        process, terminal = pty.fork()
        if process == 0:
            os.chdir(home)
            os.execvpe("zsh", ["zsh", "-d", "-i"], {"PATH": os.environ["PATH"], "ZDOTDIR": home, "TERM": "dumb"})
        os.write(terminal, (line + "\t").encode())
        offers, end = [], time.monotonic() + 60
        while "END" not in offers and time.monotonic() < end:
            if select.select([terminal], [], [], 0.05)[0]:
                os.read(terminal, 4096)  # what it shows
            if os.path.exists(home + "/offers"):
                with open(home + "/offers", encoding="utf-8") as text:
                    offers = text.read().splitlines()
        os.kill(process, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(process, 0)
        self.assertIn("END", offers, f"zsh: {line}")
        return offers[:-1]

    def test_nothing_is_left_outside_of_destdir_and_prefix(self):
        self.assertEqual(os.listdir(self.destdir), ["opt"])
        self.assertEqual(os.listdir(self.destdir + "/opt"), ["chimera"])
        self.assertFalse(os.path.exists("/opt/chimera"))

    def test_every_program_runs_and_tells_the_one_version(self):
        for program in PROGRAMS:
            told = run(f"{self.prefix}/bin/{program}", "--version")
            self.assertEqual(told, f"{program} {self.version}\n")
        self.assertEqual(sorted(os.listdir(self.prefix + "/bin")), PROGRAMS)

    def test_python_client_has_the_same_version(self):
        code = "import chimera_client; print(chimera_client.__version__)"
        told = run(sys.executable, "-c", code, env=dict(os.environ, PYTHONPATH=SOURCE + "/clients/python"))
        self.assertEqual(told.strip(), self.version)
        with open(SOURCE + "/clients/python/pyproject.toml", encoding="utf-8") as text:
            self.assertNotRegex(text.read(), r'(?m)^version = "')

    def test_a_client_is_built_against_the_package_and_runs(self):
        build = self.build("client", CLIENT)
        self.assertEqual(run(build + "/ask"), "unavailable\n")

    def test_pkg_config_knows_both_packages(self):
        source = os.path.join(self.work, "pkg-config.cc")
        with open(source, "w", encoding="utf-8") as out:
            out.write(CLIENT["ask.cc"])
        folders = glob.glob(self.prefix + "/lib/**/pkgconfig", recursive=True)
        environment = dict(os.environ, PKG_CONFIG_PATH=":".join([*folders, self.prefix + "/share/pkgconfig"]))
        told = run("pkg-config", "--cflags", "--libs", "chimera-client", env=environment).split()
        run("c++", "-std=c++20", "-O0", source, *told, "-o", self.work + "/asked")
        self.assertEqual(run(self.work + "/asked"), "unavailable\n")
        for name in ["chimera-client", "chimera-plugin"]:
            self.assertEqual(run("pkg-config", "--modversion", name, env=environment).strip(), self.version)

    def test_a_plugin_is_built_against_the_package(self):
        build = self.build("plugin", PLUGIN)
        self.assertTrue(os.path.exists(build + "/libplugin.so"))

    def test_the_package_of_another_minor_version_is_refused(self):
        major, minor, _ = self.version.split(".")
        other = {name: text.replace("{version}", f"{major}.{int(minor) + 1}") for name, text in PLUGIN.items()}
        with self.assertRaisesRegex(AssertionError, "ChimeraPlugin"):
            self.build("other", other)

    def test_schema_and_template_are_there(self):
        for name in ["deployment.schema.json", "template/CMakeLists.txt", "template/my_expert.c"]:
            self.assertTrue(os.path.exists(f"{self.prefix}/share/chimera/{name}"), name)

    def test_a_manual_page_names_every_option_of_its_program(self):
        for program in PROGRAMS:
            pages = glob.glob(f"{self.prefix}/share/man/man[18]/{program}.[18]")
            self.assertEqual(len(pages), 1, program)
            with open(pages[0], encoding="utf-8") as text:
                page = text.read()
            self.assertIn(f"Chimera {self.version}", page.splitlines()[0])
            for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH SEE ALSO"]:
                self.assertIn(section, page)
            plain = page.replace("\\-", "-").replace("\\fR", "").replace("\\fB", "")
            for option in re.findall(r"--[a-z][\w-]+", run(f"{self.prefix}/bin/{program}", "--help")):
                self.assertIn(option, plain, program)

    def test_commands_have_their_options_in_the_manual(self):
        with open(self.prefix + "/share/man/man1/chimera.1", encoding="utf-8") as text:
            page = text.read()
        command = page[page.index('.SS "generate'):]
        self.assertIn("max\\-tokens", command[:command.index(".SS", 4)])

    @unittest.skipUnless(shutil.which("groff"), "groff is not installed")
    def test_groff_finds_nothing_wrong_with_the_manual(self):
        for page in glob.glob(f"{self.prefix}/share/man/man*/*"):
            done = subprocess.run(["groff", "-man", "-ww", "-z", page], text=True, capture_output=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""), page)

    def test_completion_knows_commands_options_and_values(self):
        self.assertEqual(self.complete("chimera", "lo"), ["load"])
        self.assertIn("unload", self.complete("chimera", "u"))
        self.assertEqual(self.complete("chimera", "load", "--in-f"), ["--in-flight"])
        self.assertEqual(self.complete("chimera", "load", "x", "--in-flight", ""), ["pin", "restart"])
        self.assertEqual(self.complete("chimera", "--js"), ["--json"])
        self.assertNotIn("--in-flight", self.complete("chimera", "score", "--"))
        self.assertEqual(self.complete("chimerad", "--log-level", "w"), ["warning"])
        self.assertEqual(self.complete("chimera-module", "gr"), ["graft"])
        self.assertIn("--parent", self.complete("chimera-module", "split", "--"))
        self.assertEqual(self.complete("chimera", "module", "gr"), ["graft"])
        self.assertIn("--parent", self.complete("chimera", "--json", "module", "split", "--"))
        self.assertEqual(self.complete("chimera-plugin-check", "--level", "so"), ["soak"])

    def test_zsh_and_fish_know_the_same(self):
        for shell, complete in [("zsh", self.complete_in_zsh), ("fish", self.complete_in_fish)]:
            # scripts/dependencies.sh has them both.
            self.assertTrue(shutil.which(shell), f"{shell} is not installed")
            for line, offered in [("chimera lo", ["load"]), ("chimera --js", ["--json"]),
                                  ("chimera load --in-f", ["--in-flight"]),
                                  ("chimera module gr", ["graft"]),
                                  ("chimera --json module split --par", ["--parent"]),
                                  ("chimera load x --in-flight ", ["pin", "restart"]),
                                  ("chimerad --log-level w", ["warning"]),
                                  ("chimera-module gr", ["graft"])]:
                with self.subTest(shell=shell, line=line):
                    self.assertEqual(complete(line), offered)

    def test_completion_of_arguments_is_files(self):
        self.assertIn("share", self.complete("chimera", "load", "sh"))
        self.assertIn("share", self.complete("chimerad", "--config", "sh"))
        odd = os.path.join(self.prefix, "two words")
        os.mkdir(odd)
        self.addCleanup(os.rmdir, odd)
        self.assertEqual(self.complete("chimera", "load", "two"), ["two words"])


if __name__ == "__main__":
    unittest.main()
