"""What a program says of itself with --help, read back: the source of manual pages and completion.

An Interface is the text of --help taken apart: usage lines, commands, options and paragraphs. A
program of commands (chimera) is asked for each command's help as well.
"""
import dataclasses
import os
import re
import subprocess

# "  --name ARG (=default)   what it does" as boost::program_options prints it; -v [ --verbose ] too.
OPTION = re.compile(r"^  (?:-(?P<short>\w) \[ )?--(?P<name>[\w-]+)(?: \])?(?P<argument>(?: [^ ]+(?: \(=[^)]*\))?)?)"
                    r"(?: +(?P<text>.*))?$")
# "  name ARGS   what it does", the arguments perhaps on lines of their own.
COMMAND = re.compile(r"^  (?P<name>[a-z][a-z-]*)(?P<usage>(?: [^ ]+)*?)(?:  +(?P<text>[^ ].*))?$")


@dataclasses.dataclass
class Option:
    name: str
    short: str
    argument: str  # "" for a switch; with its default, e.g. "N (=0)"
    text: str


@dataclasses.dataclass
class Command:
    name: str
    usage: str
    text: str
    options: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Interface:
    program: str
    version: str
    usage: list  # lines, each from the program's name on
    commands: list
    options: list
    paragraphs: list  # what remains, in order; each a list of lines


def ask(program, *arguments):
    # The endpoints of whoever runs this must not show: chimera's help prints the defaults.
    environment = dict(os.environ, XDG_RUNTIME_DIR="/XDG_RUNTIME_DIR", LC_ALL="C.UTF-8")
    done = subprocess.run([program, *arguments], env=environment, text=True, capture_output=True, timeout=60)
    if done.returncode != 0:
        raise SystemExit(f"{program} {' '.join(arguments)}: ended with {done.returncode}\n{done.stderr}")
    return done.stdout.replace("/XDG_RUNTIME_DIR", "$XDG_RUNTIME_DIR")


def read_items(lines, pattern, make):
    """Takes the lines of one list (options or commands) from `lines`, whose first begins it."""
    items = []
    while lines:
        found = pattern.match(lines[0])
        if found:
            items.append(make(found))
        elif items and lines[0].startswith("      ") and lines[0].strip():
            items[-1].text = (items[-1].text + " " + lines[0].strip()).strip()
        else:
            break
        lines.pop(0)
    return items


def read_options(lines):
    return read_items(lines, OPTION, lambda m: Option(m["name"], m["short"] or "", m["argument"].strip(),
                                                      m["text"] or ""))


def read_commands(lines):
    """Commands with their usage; one that has two forms gives two entries."""
    commands = []
    while lines:
        found = COMMAND.match(lines[0])
        if found:
            commands.append(Command(found["name"], found["usage"].strip(), found["text"] or ""))
        elif commands and lines[0].startswith("        ") and lines[0].strip():
            more = lines[0].strip()
            if more.startswith("[") or more.startswith("--"):
                commands[-1].usage += " " + more
            else:
                commands[-1].text = (commands[-1].text + " " + more).strip()
        else:
            break
        lines.pop(0)
    return commands


def own_options(usage):
    """Options that only a usage line names: "--backbone OUT"."""
    named = re.findall(r"--([\w-]+)(?: ([^\s\[\]|]+(?:\|[^\s\]]+)*))?", usage)
    return [Option(name, "", argument or "", "") for name, argument in dict(named).items()]


def read(program):
    name = os.path.basename(program)
    lines = ask(program, "--help").splitlines()
    version = ask(program, "--version").split()[-1]
    interface = Interface(name, version, [], [], [], [])
    paragraph = []
    while lines:
        line = lines[0]
        if re.match(r"usage: ", line, re.I):
            interface.usage.append(lines.pop(0)[7:])
        elif not interface.usage and line.startswith(name):
            interface.usage.append(lines.pop(0))
        elif OPTION.match(line):
            interface.options += read_options(lines)
        elif COMMAND.match(line) and not interface.commands and paragraph == []:
            interface.commands = read_commands(lines)
        elif line.strip() in ("", "Options:"):
            if paragraph:
                interface.paragraphs.append(paragraph)
            paragraph = []
            lines.pop(0)
        else:
            paragraph.append(lines.pop(0))
    if paragraph:
        interface.paragraphs.append(paragraph)
    return interface


def read_with_commands(program):
    """As read(), with the options of every command."""
    interface = read(program)
    for command in interface.commands:
        command.options = own_options(command.usage)
    if not interface.options:
        interface.options = own_options(" ".join(interface.usage))
    if interface.program == "chimera":
        for command in interface.commands:
            if command.name == "module":
                continue
            lines = ask(program, command.name, "--help").splitlines()
            while lines and not OPTION.match(lines[0]):
                lines.pop(0)
            described = read_options(lines)
            command.options = described or command.options
    return interface
