"""Texts from sources that nothing was trained on, cut from checkouts, for survey.py --unseen.

    git clone https://github.com/mjpcollins/hackathon-bill-text MIRRORS/mjpcollins+hackathon-bill-text  # …
    python3 unseen.py MIRRORS OUT

They are for measuring alone, and none of them is in the repository. Chosen before anything was measured
on them; nothing was fitted or chosen by them. Standard library only.
"""
from __future__ import annotations

import html
import pathlib
import re
import subprocess
import sys

LIMIT = 60_000  # characters of each text

# File: (repository, commit, paths, what, licence)
TEXTS: dict[str, tuple[str, str, tuple[str, ...], str, str]] = {
    "legal.uk_act": (
        "mjpcollins/hackathon-bill-text", "0594e18", ("bills/_2731.py",),
        "Coronavirus Act 2020 of the United Kingdom", "Open Government Licence v3.0"),
    "bio.review": (
        "greenelab/deep-review", "44ff95a", ("content/03.categorize.md", "content/04.study.md"),
        "Opportunities and obstacles for deep learning in biology and medicine", "CC-BY-4.0"),
    "finance.newswire": (
        "OmerShubi/Reuters_1987_Classification", "19a393e", ("Data/reuters_test_data/r217.sgm",),
        "Reuters newswire of 1987, bodies of 800 characters and more", "research use"),
    "general.manual": (
        "rust-lang/book", "917544888", tuple(f"src/ch0{n}.md" for n in (
            "1-00-getting-started", "3-01-variables-and-mutability", "4-01-what-is-ownership")),
        "The Rust Programming Language", "MIT or Apache-2.0"),
}
# On every Debian system: licences, which are contracts of another kind.
LICENCES = ("Apache-2.0", "MPL-2.0", "GPL-3")
ASCII = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-",
                       "\u2014": " - ", "\u00a0": " ", "\u2026": "..."})


def newswire(text: str) -> str:
    """Bodies of longer stories, without their line breaks."""
    bodies = re.findall(r"<BODY>(.*?)</BODY>", text, re.S)
    clean = [re.sub(r"\s*\n\s*", " ", html.unescape(re.sub(r"&#\d+;", "", b))) for b in bodies]
    return "\n\n".join(re.sub(r"\s*Reuter\s*$", "", c).strip() for c in clean if len(c) >= 800)


def plain(text: str) -> str:
    """Markdown without code, citations, comments and marks."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    text = re.sub(r"<!--.*?-->|\{#[^}]*\}|\s*\[@[^\]]*\]", "", text, flags=re.S)
    text = re.sub(r"\[([^\]]*)\](?:\[[^\]]*\]|\([^)]*\))", r"\1", text)
    text = re.sub(r"^\[[^\]]*\]:.*$|^<.*>$|^\{\{.*$", "", text, flags=re.M)
    return re.sub(r"[*`]|^#+ |^> ?", "", text, flags=re.M)


def clean(name: str, text: str) -> str:
    """Plain ASCII punctuation, paragraphs on one line each."""
    text = newswire(text) if name == "finance.newswire" else plain(text) if ".md" in name else text
    text = re.sub(r'^\s*bill_text = """|"""\s*$', "", text).translate(ASCII)
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(" ".join(p.split()) for p in paragraphs if len(p.split()) > 5)[:LIMIT] + "\n"


def main() -> None:
    """Writes one file per text."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    mirrors, out = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for name, (repository, commit, paths, what, licence) in TEXTS.items():
        folder = mirrors / repository.replace("/", "+")
        folder = folder / "repo" if (folder / "repo").exists() else folder
        each = [subprocess.run(["git", "-C", folder, "show", f"{commit}:{path}"], check=True,
                               capture_output=True).stdout.decode("utf-8") for path in paths]
        text = clean(name + (".md" if paths[0].endswith(".md") else ""), "\n\n".join(each))
        (out / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.encode())} bytes of {what} ({repository} at {commit}; {licence})")
    texts = [(pathlib.Path("/usr/share/common-licenses") / n).read_text() for n in LICENCES]
    text = "\n\n".join(clean("licence", t)[:LIMIT // 3] for t in texts)
    (out / "legal.licences.txt").write_text(text, encoding="utf-8")
    print(f"legal.licences: {len(text.encode())} bytes of {', '.join(LICENCES)}")


if __name__ == "__main__":
    main()
