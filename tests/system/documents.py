"""README and docs taken apart: fenced blocks with their language and marker, links, code spans."""
from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass

from harness import SOURCE

DOCUMENTS = sorted(p for p in [
    SOURCE / "README.md", SOURCE / "CONTRIBUTING.md", *SOURCE.glob("docs/*.md"),
    *SOURCE.glob("clients/*.md"), *SOURCE.glob("experts/*.md"), *SOURCE.glob("plugin-api/**/*.md")]
    if p.is_file())
# How a line begins that somebody types.
COMMAND = re.compile(r"\s*(\$ |((build/bin/)?chimera(d|-[a-z-]+)?|\./\w+|ctest|cmake|python3|apt-get) )")
MARKER = re.compile(r"<!-- (not run|measured): (.+) -->")


@dataclass
class Block:
    document: str  # path from the root of the tree
    line: int
    heading: str
    language: str
    text: str
    marker: str    # "not run", "measured" or nothing: the comment on the line before

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(SOURCE))


def blocks_of(path: pathlib.Path) -> list[Block]:
    blocks, heading, fence, before = [], "", None, ""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if fence is not None:
            if line.strip() == "```":
                blocks.append(fence)
                fence = None
            else:
                fence.text += line + "\n"
        elif line.lstrip().startswith("```"):
            marker = MARKER.fullmatch(before.strip())
            fence = Block(name_of(path), number, heading, line.strip()[3:], "",
                          marker[1] if marker else "")
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
        before = line
    assert fence is None, f"{fence} has no end"
    return blocks


def prose_of(path: pathlib.Path) -> str:
    """Without fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.S | re.M)


def code_spans(path: pathlib.Path) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose_of(path))]


def table_rows(path: pathlib.Path, heading: str) -> list[list[str]]:
    """Cells of all table rows below a heading, without its title and separator rows."""
    text = path.read_text()
    text = text[text.index(heading):]
    text = text[:text.find("\n## ", 1)]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")]
            for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if not set("".join(row)) <= set("-: |")]
