"""Every tokenizer of the golden set through the wire, equal to the last byte: ids of texts with and
without special tokens added, decoding of arbitrary ids, and every growing prefix.

The tokenizers are put beside a tiny checkpoint, whose vocabulary `tokenize` and `detokenize` do not
need. Matching of special tokens is tested here, too: only `tokenize` reads a text as the tokenizer's
own library does, and only when asked to; prompts and scored texts never become control tokens.
"""
import json
import pathlib
import shutil
import tempfile
import unittest

from harness import GOLDEN, SHARED_GOLDEN, Daemon, chimera_client

TOKENIZERS = SHARED_GOLDEN / "tokenizers"


class Served:
    """A daemon on a tiny checkpoint with the tokenizer `name`."""

    def __init__(self, name: str) -> None:
        self.scratch = tempfile.TemporaryDirectory(prefix="chimera-tokenizer-")
        backbone = pathlib.Path(self.scratch.name) / "backbone"
        shutil.copytree(GOLDEN / "flex_olmo_f32", backbone)
        shutil.copy(TOKENIZERS / name / "tokenizer.json", backbone / "tokenizer.json")
        self.daemon = Daemon(backbone)
        self.client = self.daemon.client()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.close()
        self.daemon.__exit__(*exc)
        self.scratch.cleanup()


@unittest.skipUnless(TOKENIZERS.is_dir(), f"golden set absent: {TOKENIZERS}")
class TokenizersThroughTheWire(unittest.TestCase):
    def check_cases(self, client: chimera_client.Client, cases: list[dict]) -> None:
        for case in cases:
            text, ids = case["text"], case["ids"]
            with_special = case.get("ids_special", ids)
            with self.subTest(case=case["id"], cat=case["cat"]):
                self.assertEqual(client.tokenize(text, match_special=True), ids)
                self.assertEqual(client.tokenize(text, add_special=True, match_special=True),
                                 with_special)
                self.assertEqual(client.detokenize(ids), case["decoded"])
                self.assertEqual(client.detokenize(with_special, skip_special=True),
                                 case.get("decoded_skip_special", case["decoded"]))

    def check_decoding(self, client: chimera_client.Client, golden: dict) -> None:
        for case in golden["decode"]:
            with self.subTest(decode=case["ids"][:8]):
                self.assertEqual(client.detokenize(case["ids"], skip_special=case["skip_special"]),
                                 case["text"])
        for prefix in golden["prefix"]:
            ids = golden["cases"][prefix["case"]]["ids"]
            for n, text in enumerate(prefix["texts"], start=1):
                self.assertEqual(client.detokenize(ids[:n]), text)

    def check(self, name: str) -> None:
        golden = json.loads((TOKENIZERS / name / "golden.json").read_text())
        self.assertTrue(golden["cases"] and golden["decode"] and golden["prefix"])
        with Served(name) as served:
            self.check_cases(served.client, golden["cases"])
            self.check_decoding(served.client, golden)

    def test_text_becomes_control_tokens_only_on_demand(self) -> None:
        with Served("tiny312") as served:
            client = served.client
            tokenizer = json.loads((TOKENIZERS / "tiny312" / "tokenizer.json").read_text())
            specials = {token["content"]: token["id"] for token in tokenizer["added_tokens"] if token["special"]}
            self.assertGreater(len(specials), 1)
            for name, special in specials.items():
                text = f"a{name}b"
                with self.subTest(text=text):
                    self.assertEqual(client.tokenize(name, match_special=True), [special])
                    self.assertIn(special, client.tokenize(text, match_special=True))
                    # The default on the wire, without the Python client's own default.
                    plain = client.call("tokenize", text=text)["tokens"]
                    self.assertEqual(plain, client.tokenize(text))
                    self.assertNotIn(special, plain)
                    self.assertEqual(client.detokenize(plain), text)
                    # Prompts and scored texts: as many tokens as the plain reading has.
                    added = client.tokenize(text, add_special=True)
                    self.assertEqual(client.complete(text, max_tokens=1, temperature=0)["usage"]["prompt_tokens"],
                                     len(added))
                    self.assertEqual(client.score(text).done["n_tokens"], len(plain) + 1)

    def test_ids_outside_every_vocabulary_are_refused(self) -> None:
        with Served("tiny312") as served:
            for bad in (-1, 1 << 20):
                with self.assertRaises(chimera_client.ChimeraError) as caught:
                    served.client.detokenize([5, bad])
                self.assertEqual(caught.exception.code, "invalid_argument")


def add_test(name: str) -> None:
    def test(self: TokenizersThroughTheWire) -> None:
        self.check(name)
    setattr(TokenizersThroughTheWire, f"test_{name}", test)


if TOKENIZERS.is_dir():
    for directory in sorted(TOKENIZERS.iterdir()):
        add_test(directory.name)

if __name__ == "__main__":
    unittest.main()
