"""Manual pages and completion of programs, from what they say of themselves (interface.py).

Usage: manual.py OUT PROGRAM…   writes OUT/NAME.SECTION for each, OUT/completion/NAME for bash,
                                OUT/zsh/_NAME and OUT/fish/NAME.fish
"""
import pathlib
import re
import sys

import completion
import completion_fish
import completion_zsh
import interface

# Section, and the line that `apropos` shows.
PAGES = {
    "chimera": (1, "talk to a chimerad: generate, score, and change its expert modules"),
    "chimera-gateway": (8, "serve a chimerad over HTTP: the API of OpenAI, and its own calls"),
    "chimera-module": (1, "cut, join and check expert modules, offline"),
    "chimera-plugin-check": (1, "try an expert plugin against its contract"),
    "chimera-plugin-host": (8, "run the code of one library module for chimerad"),
    "chimerad": (8, "serve a Mixture-of-Experts model and swap its expert modules"),
}


def escape(text):
    """Text for roff: nothing in it is a request or an escape, and hyphens can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^([.'])", r"\\&\1", text)


def option_item(option):
    short = f"\\fB\\-{option.short}\\fR, " if option.short else ""
    argument = f" \\fI{escape(option.argument)}\\fR" if option.argument else ""
    return [".TP", f"{short}\\fB\\-\\-{escape(option.name)}\\fR{argument}", escape(option.text) or "\\&"]


def paragraph(lines):
    """Running text is filled; what is laid out by hand stays as it is."""
    if any(line.startswith(" ") or "  " in line for line in lines):
        return [".PP", ".nf", *map(escape, lines), ".fi"]
    return [".PP", *map(escape, lines)]


def page(told):
    section, summary = PAGES[told.program]
    lines = [f'.TH {escape(told.program).upper()} {section} "" "Chimera {told.version}"',
             ".SH NAME", f"{escape(told.program)} \\- {escape(summary)}", ".SH SYNOPSIS"]
    for usage in told.usage:
        name, _, rest = usage.partition(" ")
        lines += [".PP", f"\\fB{escape(name)}\\fR {escape(rest)}"]
    if told.paragraphs:
        lines.append(".SH DESCRIPTION")
        for text in told.paragraphs:
            lines += paragraph(text)
    if told.options:
        lines.append(".SH OPTIONS")
        for option in told.options:
            lines += option_item(option)
    if told.commands:
        lines.append(".SH COMMANDS")
    for command in told.commands:
        lines += [f'.SS "{escape((command.name + " " + command.usage).strip())}"', escape(command.text) or "\\&"]
        for option in (o for o in command.options if o.text):
            lines += option_item(option)
    others = sorted(name for name in PAGES if name != told.program)
    lines += [".SH SEE ALSO", ", ".join(f"\\fB{escape(name)}\\fR({PAGES[name][0]})" for name in others)]
    return "\n".join(lines) + "\n"


def main(out, programs):
    out = pathlib.Path(out)
    for folder in ["completion", "zsh", "fish"]:
        (out / folder).mkdir(parents=True, exist_ok=True)
    for program in programs:
        told = interface.read_with_commands(program)
        (out / f"{told.program}.{PAGES[told.program][0]}").write_text(page(told))
        (out / "completion" / told.program).write_text(completion.script(told, PAGES))
        (out / "zsh" / f"_{told.program}").write_text(completion_zsh.script(told, PAGES))
        (out / "fish" / f"{told.program}.fish").write_text(completion_fish.script(told, PAGES))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
