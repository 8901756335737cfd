#!/usr/bin/env python3
"""Draws what `chimera generate --shares` shows on a terminal of 80 columns: an SVG for README.

    scripts/share_picture.py OUT.svg PROMPT [OPTIONS of chimera generate…]

Runs build/bin/chimera on a terminal of its own and asks the daemon at the usual endpoints, so the
picture is of a real run; the same model, seed and options give the same picture. Standard library only.
"""
from __future__ import annotations

import html
import os
import pathlib
import pty
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHIMERA = pathlib.Path(os.environ.get("CHIMERA_BUILD", ROOT / "build")) / "bin" / "chimera"
COLUMNS, CELL, LINE, EDGE = 80, 8.4, 19, 14
GROUND, TEXT = "#1b1f24", "#d7dbe0"
# What the colours of clients/cli/terminal/share_view.cc are here: read on a dark ground.
COLOURS = {31: "#ff8a80", 32: "#8bd48b", 33: "#f0c75e", 34: "#82aaff", 35: "#d9a0e8", 36: "#6fd3d3"}
SGR = re.compile(r"\x1b\[(\d*)m")


def on_a_terminal(command: list[str]) -> str:
    """What a command writes to a terminal. Its errors, and what it says of its speed, stay out."""
    reader, writer = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE,
                          env=environment) as process:
        os.close(writer)
        parts = []
        while True:
            try:
                part = os.read(reader, 65536)
            except OSError:  # the terminal's other side is closed
                break
            if not part:
                break
            parts.append(part)
        os.close(reader)
        assert process.stderr is not None
        said = process.stderr.read().decode()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}\n{said}")
    return b"".join(parts).decode().replace("\r\n", "\n")


def cells(text: str) -> list[list[tuple[str, int]]]:
    """Lines of characters with their colours (0: none), as a terminal of COLUMNS breaks them, but
    between words."""
    lines: list[list[tuple[str, int]]] = [[]]
    colour = 0
    for i, part in enumerate(SGR.split(text)):
        if i % 2 == 1:
            colour = int(part or 0)
            continue
        for character in part:
            if character == "\n":
                lines.append([])
                continue
            lines[-1].append((character, colour))
            if len(lines[-1]) > COLUMNS:
                line = lines[-1]
                at = max((k for k, c in enumerate(line) if c[0] == " "), default=COLUMNS - 1)
                lines[-1:] = [line[:at], line[at + 1:] if line[at][0] == " " else line[at:]]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def svg(lines: list[list[tuple[str, int]]]) -> str:
    """The picture: a run of one colour is one span."""
    width, height = round(COLUMNS * CELL + 2 * EDGE), LINE * len(lines) + 2 * EDGE
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}" role="img">',
           f'<rect width="{width}" height="{height}" rx="6" fill="{GROUND}"/>',
           f'<g font-family="ui-monospace,Menlo,Consolas,monospace" font-size="14" fill="{TEXT}" '
           'xml:space="preserve">']
    for row, line in enumerate(lines):
        at = 0
        while at < len(line):
            end = at
            while end < len(line) and line[end][1] == line[at][1]:
                end += 1
            word = html.escape("".join(c for c, _ in line[at:end]), quote=False)
            fill = f' fill="{COLOURS[line[at][1]]}"' if line[at][1] in COLOURS else ""
            if word.strip():
                out.append(f'<text x="{EDGE + at * CELL:.1f}" y="{EDGE + LINE * row + 14}" '
                           f'textLength="{(end - at) * CELL:.1f}"{fill}>{word}</text>')
            at = end
    return "\n".join([*out, "</g>", "</svg>", ""])


def picture(arguments: list[str], endpoint: str | None = None) -> str:
    """The picture of `chimera generate ARGUMENTS --shares`."""
    command = ["generate", *arguments, "--shares"]
    where = ["--endpoint", endpoint] if endpoint else []
    shown = " ".join(f'"{word}"' if re.search(r"[^\w./=-]", word) else word for word in command)
    return svg(cells(f"$ chimera {shown}\n" + on_a_terminal([str(CHIMERA), *where, *command])))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    pathlib.Path(sys.argv[1]).write_text(picture(sys.argv[2:]), encoding="utf-8")
