"""Cuts the short evaluation excerpts in `excerpts/` from the valid sets (redistributable texts only).

    python3 make_excerpts.py --corpora ../../../shared/corpora

The rule looks at no score: of the records whose licence allows it, in file order, 24 at even
distances, and of each the first whole sentences after its middle. (What a module gains on single
pieces spreads by some 7 points of per cent: 8 pieces would tell the mean to 2.5 points, 24 to 1.5.) The pieces are scored one by one,
as the documents of the valid sets are; a line of four dashes stands between them.
"""
from __future__ import annotations

import argparse
import re
from pathlib import Path

import corpus

PIECES, BYTES = 24, 1600
SEPARATOR = "\n\n----\n\n"
# Redistributable sources by tag: what it is, and its licence.
SOURCES: dict[str, dict[str, tuple[str, str]]] = {
    "general": {
        "digital_gov": ("digital.gov article", "US government work, CC0-1.0"),
        "18f_blog": ("18F blog article", "US government work, CC0-1.0"),
        "classic_books": ("book of 1880 to 1928", "public domain in the US"),
        "openstax_gen": ("OpenStax College textbook", "CC-BY-3.0")},
    "legal": {
        "uscode": ("United States Code", "public domain"),
        "dc_code": ("District of Columbia Code", "edict of government, released as CC0"),
        "scotus": ("US federal court opinion", "public domain")},
    "bio": {
        "medquad": ("MedQuAD (A. Ben Abacha, D. Demner-Fushman), NIH or CDC text", "CC-BY-4.0"),
        "openstax_bio": ("OpenStax College textbook", "CC-BY-3.0"),
        "pmc_oa": ("research article in PubMed Central", "CC-BY or CC0, tag of the article"),
        "plos": ("PLOS research article", "CC-BY or CC0, tag of the article")},
    "finance": {
        "beige_book": ("Federal Reserve Beige Book", "public domain"),
        "fomc_minutes": ("FOMC minutes", "public domain"),
        "fed_speeches": ("speech by a Federal Reserve official", "public domain"),
        "fed_pressconf": ("FOMC press conference", "public domain"),
        "openstax_econ": ("OpenStax textbook", "CC-BY-4.0"),
        "tatqa": ("TAT-QA paragraph", "CC-BY-4.0")},
}


def cut(text: str) -> str:
    """Whole sentences after the middle of `text`, about BYTES bytes; short texts entire."""
    if len(text.encode()) <= BYTES:
        return text.strip()
    middle = len(text) // 2
    start = re.compile(r"(?<=[.!?])\s+").search(text, middle)
    begin = start.end() if start and start.end() + BYTES // 2 < len(text) else middle
    piece = text[begin:begin + BYTES]
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s|$)", piece)]
    return piece[:ends[-1] if ends else len(piece)].strip()


def main() -> None:
    """Write one text per domain and SOURCES.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=Path, default=corpus.DEFAULT_CORPORA)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("excerpts"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    notes = ["# Excerpts", "", "Parts of texts of the valid sets (never trained on), for a test of "
             "the evaluation table,", "cut by the rule of `make_excerpts.py`; in order of "
             "appearance. Shortening is the only change.", "",
             "| file | text | record | licence |", "| --- | --- | --- | --- |"]
    for domain, sources in SOURCES.items():
        allowed = [r for r in corpus.records(args.corpora, domain, "valid")
                   if r["source"] in sources]
        picks = [allowed[i * len(allowed) // PIECES] for i in range(PIECES)]
        parts = [cut(r["text"]) for r in picks]
        (args.out / f"{domain}.txt").write_text(SEPARATOR.join(parts) + "\n", encoding="utf-8")
        for record in picks:
            what, licence = sources[record["source"]]
            notes.append(f"| {domain}.txt | {what} | `{record['id']}` | {licence} |")
        print(domain, len(allowed), sum(len(p.encode()) for p in parts))
    (args.out / "SOURCES.md").write_text("\n".join(notes) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
