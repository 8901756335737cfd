"""Cuts the short evaluation excerpts in `excerpts/` from the valid sets (redistributable texts only).

    python3 make_excerpts.py --corpora ../../../shared/corpora
"""
from __future__ import annotations

import argparse
from pathlib import Path

import corpus

BYTES = 2100
PICK: dict[str, list[tuple[str, str, str, str]]] = {
    "general": [
        ("digital_gov:content/news/2023/09/2023-09-12-from-pageviews-to-progress.md#0",
         "digital.gov article, 2023-09-12", "US government work, CC0-1.0", ""),
        ("bk:H.G. Wells/The Time Machine.md#0", "H. G. Wells, The Time Machine",
         "public domain in the US", ""),
        ("18f_blog:content/posts/2016-03-09-trust-as-a-two-way-street.md#0",
         "18F blog, 2016-03-09", "US government work, CC0-1.0", ""),
        ("bk:Edith Wharton/Ethan Frome.md#0", "Edith Wharton, Ethan Frome",
         "public domain in the US", "")],
    "legal": [
        ("usc:466b1e38a9ef#0", "United States Code, one section", "public domain", ""),
        ("dc:29-203.04.xml#0", "District of Columbia Code, section 29-203.04",
         "edict of government, released as CC0", ""),
        ("scotus:united states v king#0", "United States v. King, federal court opinion",
         "public domain", ""),
        ("usc:6d9e0b6f5da7#0", "United States Code, one section", "public domain", "")],
    "bio": [
        ("anatomy-book:m46661.md#0", "OpenStax College, Anatomy & Physiology (2014 edition)",
         "CC-BY-3.0", "module m46661, shortened"),
        ("mq:3_GHR_QA/0000131.xml#0", "MedQuAD (A. Ben Abacha, D. Demner-Fushman), NIH text on "
         "Bloom syndrome", "CC-BY-4.0", "shortened"),
        ("biology-concepts-book:m45509.md#0", "OpenStax College, Concepts of Biology",
         "CC-BY-3.0", "module m45509, shortened"),
        ("mq:9_CDC_QA/0000397.xml#0", "MedQuAD (A. Ben Abacha, D. Demner-Fushman), CDC text on "
         "taeniasis", "CC-BY-4.0", "shortened")],
    "finance": [
        ("bb:2006-06-mi.txt#0", "Federal Reserve Beige Book, June 2006", "public domain", ""),
        ("fomc:1999-11-16#0", "FOMC minutes, 1999-11-16", "public domain", ""),
        ("bb:1991-06-ny.txt#0", "Federal Reserve Beige Book, June 1991", "public domain", ""),
        ("sp:powell20170107a.txt#0", "speech by a Federal Reserve Governor, 2017-01-07",
         "public domain", "")],
}


def cut(text: str, size: int) -> str:
    """Whole paragraphs from the second on (the first is often a heading), about `size` bytes."""
    out: list[str] = []
    for paragraph in text.split("\n\n")[1:]:
        room = size - sum(len(p.encode()) for p in out)
        if len(paragraph.encode()) > room:
            if room > 400:
                end = paragraph[:room].rfind(". ")
                out.append(paragraph[:end + 1] if end > 0 else "")
            break
        out.append(paragraph)
    return "\n\n".join(p for p in out if p)


def main() -> None:
    """Write one text per domain and SOURCES.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=Path, default=corpus.DEFAULT_CORPORA)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("excerpts"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    notes = ["# Excerpts", "", "Parts of texts of the valid sets (never trained on), for a test of "
             "the evaluation table.", "In order of appearance; \"shortened\" marks the only change.",
             "", "| file | text | licence | note |", "| --- | --- | --- | --- |"]
    for domain, picks in PICK.items():
        by_id = {r["id"]: r["text"] for r in corpus.records(args.corpora, domain, "valid")}
        parts = [cut(by_id[key], BYTES) for key, *_ in picks]
        (args.out / f"{domain}.txt").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        notes += [f"| {domain}.txt | {what} | {licence} | {note or 'shortened'} |"
                  for _, what, licence, note in picks]
        print(domain, [len(p.encode()) for p in parts])
    (args.out / "SOURCES.md").write_text("\n".join(notes) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
