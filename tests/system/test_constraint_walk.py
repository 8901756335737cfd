"""Random answers to random schemas: every one that ends is valid, none hangs or gets stuck."""
from __future__ import annotations

import json
import unittest
from typing import Any

from harness import BUILD, DEMO, LONG, subprocess
from schemas import Schemas, validate

SCHEMAS = 1000 if LONG else 150
ANSWERS = 4


def walk(schemas: list[Any]) -> list[dict[str, Any]]:
    done = subprocess.run([BUILD / "tests" / "constraint_walk", DEMO / "backbone" / "tokenizer.json", str(ANSWERS)],
                          input="".join(json.dumps(schema) + "\n" for schema in schemas), text=True,
                          capture_output=True, timeout=600, check=True)
    return [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]


class ConstraintWalkTest(unittest.TestCase):
    def test_what_ends_is_valid(self) -> None:
        schemas = [Schemas(seed).whole() for seed in range(SCHEMAS)]
        answers = iter(walk(schemas))
        ended = 0
        for schema in schemas:
            for _ in range(ANSWERS):
                answer = next(answers)
                with self.subTest(schema=json.dumps(schema), answer=answer):
                    self.assertIn(answer.get("end"), ("stop", "length"))
                    if answer["end"] == "stop":
                        ended += 1
                        validate(schema, answer["text"])
        self.assertIsNone(next(answers, None))
        self.assertGreater(ended, 3 * SCHEMAS)  # of four each, or it shows little

    def test_the_judge_sees_what_is_invalid(self) -> None:
        for schema, text in (({"type": "integer"}, '"1"'), ({"type": "string", "format": "time"}, '"25:00:00Z"'),
                             ({"type": "string", "format": "date-time"}, '"2024-02-30T00:00:00Z"')):
            with self.assertRaises(Exception):
                validate(schema, text)


if __name__ == "__main__":
    unittest.main()
