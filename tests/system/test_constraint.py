"""Constrained answers: whatever a model wants to say, what ends is what was asked for."""
from __future__ import annotations

import json
import re
import unittest
from typing import Any

from harness import DEMO, LONG, Daemon, chimera_client
from schemas import Schemas, validate

SCHEMAS = 200 if LONG else 40  # test_constraint_walk.py takes more of them, without a model
class ConstraintTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.daemon = Daemon(DEMO / "backbone", serve={"max_sequences": 32, "max_context": 512, "max_queue": 2000})
        cls.client = cls.daemon.client()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.client.close()
        cls.daemon.__exit__(None, None, None)

    def answers(self, constraints: list[Any], **more: Any) -> list[dict[str, Any]]:
        """All at once, so that they share batches. A temperature that makes the model's choice all
        but random: what holds then holds for any model."""
        options = {"prompt": "Answer:", "max_tokens": 250, "stream": False, "temperature": 4.0, **more}
        ids = [self.client.send("generate", constraint=constraint, seed=i, **options)
               for i, constraint in enumerate(constraints)]
        return [self.client.receive("generate", one).body for one in ids]

    def test_what_ends_is_valid(self) -> None:
        schemas = [Schemas(seed).whole() for seed in range(SCHEMAS)]
        ended = 0
        for schema, done in zip(schemas, self.answers([{"json_schema": s} for s in schemas]), strict=True):
            with self.subTest(schema=json.dumps(schema), text=done["text"]):
                self.assertIn(done["finish_reason"], ("stop", "length"))
                if done["finish_reason"] == "length":
                    continue
                ended += 1
                validate(schema, done["text"])
        self.assertGreater(ended, SCHEMAS // 2)  # or it shows nothing

    def test_any_object(self) -> None:
        # Brackets are made likely, or random text would never close one.
        likely = {str(self.client.tokenize(c)[-1]): 6 for c in '"}],'}
        done = self.answers([{"json_object": True}] * 12, logit_bias=likely, max_tokens=400)
        texts = [one["text"] for one in done if one["finish_reason"] == "stop"]
        self.assertTrue(texts)
        for text in texts:
            self.assertIsInstance(json.loads(text), dict)

    def test_expressions(self) -> None:
        patterns = ["[a-z]{3}\\d+(\\.\\d{2})?", "(yes|no|maybe)", "\\w+@\\w+\\.(com|org)", "(?:[^aeiou\\s]{1,4} ){2,3}end",
                    "[à-ÿ]{1,8}", "\\d{4}-\\d{2}", "x*"]
        for pattern, done in zip(patterns, self.answers([{"regex": p} for p in patterns], max_tokens=120), strict=True):
            with self.subTest(pattern=pattern, text=done["text"]):
                if done["finish_reason"] == "stop":
                    self.assertIsNotNone(re.fullmatch(pattern, done["text"]))
        self.assertEqual(self.answers([{"regex": "one exact text"}])[0]["text"], "one exact text")

    def test_the_company_changes_nothing(self) -> None:
        constraint = {"json_schema": {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 3,
                                      "maxItems": 6}}
        options = {"prompt": "x", "max_tokens": 60, "seed": 5, "temperature": 2.0, "constraint": constraint}
        alone = self.client.complete(**options, logprobs=True)
        crowd = [self.client.generate("The court", max_tokens=80, temperature=1.0, seed=i, constraint={"regex": ".*"})
                 for i in range(6)]
        among = self.client.complete(**options, logprobs=True)
        self.assertEqual((among["tokens"], among["logprobs"]), (alone["tokens"], alone["logprobs"]))
        for one in crowd:
            one.text()

    def test_streams_and_stops(self) -> None:
        constraint = {"json_schema": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 4}},
                                      "required": ["name"]}}
        generation = self.client.generate("x", temperature=0, constraint=constraint, top_logprobs=1)
        text = generation.text()
        self.assertEqual(generation.done["finish_reason"], "stop")
        self.assertEqual(list(json.loads(text)), ["name"])
        cut = self.client.complete("x", temperature=0, constraint=constraint, stop=["name"])
        self.assertEqual((cut["finish_reason"], cut["text"]), ("stop", text[:text.index("name")]))
        short = self.client.complete("x", temperature=0, constraint=constraint, max_tokens=1)
        self.assertEqual(short["finish_reason"], "length")

    def test_what_cannot_be_kept_is_refused_by_name(self) -> None:
        for constraint, problem in (
                ({"json_schema": {"type": "object", "properties": {"a": {"not": {}}}}},
                 'constraint.json_schema.properties.a: keyword "not" is not supported'),
                ({"json_schema": {"type": "integer", "multipleOf": 2}}, '"multipleOf"'),
                ({"json_schema": {"type": "integer", "minimum": 2, "maximum": 1}}, "no text"),
                ({"regex": "(?=x)"}, "constraint.regex: byte 2"),
                ({"regex": "((((a{100}){100}){100}){100})"}, "nodes"),
                ({"regex": "a", "json_object": True}, "constraint"), ({}, "constraint"), ({"grammar": "x"}, "grammar"),
                ({"json_object": False}, "json_object")):
            with self.subTest(constraint=constraint), self.assertRaises(chimera_client.ChimeraError) as caught:
                self.client.complete("x", constraint=constraint)
            self.assertIn(problem, str(caught.exception))
            self.assertEqual(caught.exception.code, "invalid_argument")
        with self.assertRaisesRegex(chimera_client.ChimeraError, "ignore_eos"):
            self.client.complete("x", constraint={"regex": "a"}, ignore_eos=True)


if __name__ == "__main__":
    unittest.main()
