"""Random schemas of the subset that docs/constraints.md lists, and whether an answer is valid.

The judge is python3-jsonschema, which shares no code with Chimera.
"""
from __future__ import annotations

import datetime
import json
import random
from typing import Any

import jsonschema

WORDS = ["a", "bc", "d e", 'q"t', "back\\slash", "é", "日本", "x/y", "z~", ""]


class Schemas:
    """Mostly of bounded size, so that random answers end."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def whole(self) -> Any:
        if self.random.random() < 0.15:
            return self.recursive()
        return self.schema(3)

    def schema(self, depth: int) -> Any:
        kinds = [self.integer, self.number, self.string, self.pattern, self.format, self.enum, self.const, self.simple]
        if depth > 0:
            deep = [self.array, self.object, self.tuple, self.any_of, self.one_of, self.all_of, self.open_object]
            kinds += deep * 2
        return self.random.choice(kinds)(depth)

    def integer(self, _: int) -> Any:
        schema: dict[str, Any] = {"type": "integer"}
        low = self.random.randint(-2000, 2000)
        if self.random.random() < 0.6:
            schema[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        if self.random.random() < 0.6:
            schema[self.random.choice(["maximum", "exclusiveMaximum"])] = low + self.random.randint(2, 5000)
        return schema

    def number(self, _: int) -> Any:
        return {**self.integer(0), "type": self.random.choice(["number", ["number", "null"]])}

    def string(self, _: int) -> Any:
        least = self.random.randint(0, 3)
        return {"type": "string", "minLength": least, "maxLength": least + self.random.randint(0, 6), "title": "t"}

    def pattern(self, _: int) -> Any:
        return {"type": "string", "pattern": self.random.choice(
            ["^[a-c]{2,5}$", "^(x|yz)+\\d$", "^\\w{1,3}-[^\\s\"]{2}$", "^.{0,4}$", "^(?:\\x41|\\\\|\")b?$"])}

    def format(self, _: int) -> Any:
        return {"type": "string", "format": self.random.choice(["date", "time", "date-time", "uuid", "ipv4", "email"])}

    def enum(self, _: int) -> Any:
        values: list[Any] = [1, -2.5, True, None, "x", 'a"b', [1, "y"], {"k": []}]
        return {"enum": self.random.sample(values, self.random.randint(1, 4))}

    def const(self, _: int) -> Any:
        return {"const": self.random.choice(["word", 17, False, {"a": [None]}])}

    def simple(self, _: int) -> Any:
        return self.random.choice([{"type": "null"}, {"type": "boolean"}, {"type": ["boolean", "integer"]}, {"minimum": 3}])

    def array(self, depth: int) -> Any:
        least = self.random.randint(0, 2)
        return {"type": "array", "items": self.schema(depth - 1), "minItems": least,
                "maxItems": least + self.random.randint(0, 2)}

    def tuple(self, depth: int) -> Any:
        return {"type": "array", "prefixItems": [self.schema(depth - 1) for _ in range(self.random.randint(1, 3))]}

    def properties(self, depth: int) -> tuple[dict[str, Any], list[str]]:
        names = self.random.sample(WORDS, self.random.randint(1, 4))
        return ({name: self.schema(depth - 1) for name in names},
                self.random.sample(names, self.random.randint(0, len(names))))

    def object(self, depth: int) -> Any:
        properties, required = self.properties(depth)
        schema = {"type": "object", "properties": properties, "required": required}
        if self.random.random() < 0.5:
            schema["additionalProperties"] = False
        return schema

    def open_object(self, depth: int) -> Any:
        properties, required = self.properties(depth)
        return {"type": "object", "properties": properties, "required": [*required, "more"],
                "additionalProperties": self.random.choice([{"type": "integer"}, {"enum": ["v", 0]}])}

    def any_of(self, depth: int) -> Any:
        return {"anyOf": [self.schema(depth - 1) for _ in range(self.random.randint(1, 3))], "description": "d"}

    def one_of(self, depth: int) -> Any:
        kinds = [{"type": "object", "properties": {"kind": {"const": kind}, "of": self.schema(depth - 1)},
                  "required": ["kind", "of"], "additionalProperties": False} for kind in ("one", "two")]
        return {"oneOf": [*kinds, {"type": "string", "maxLength": 3}, {"type": "null"}]}

    def all_of(self, depth: int) -> Any:
        return {"allOf": [self.schema(depth - 1)]}

    def recursive(self) -> Any:
        return {"$defs": {"node": {"type": "object",
                                   "properties": {"v": self.schema(1), "next": {"anyOf": [{"type": "null"},
                                                                                          {"$ref": "#/$defs/node"}]}},
                                   "required": ["v", "next"]}},
                "$ref": "#/$defs/node"}


FORMATS = jsonschema.FormatChecker(formats=["date", "uuid", "email", "ipv4"])


@FORMATS.checks("time", raises=ValueError)
def is_time(value: Any) -> bool:
    return not isinstance(value, str) or datetime.time.fromisoformat(value.upper()).tzinfo is not None


@FORMATS.checks("date-time", raises=ValueError)
def is_date_time(value: Any) -> bool:
    return not isinstance(value, str) or datetime.datetime.fromisoformat(value.upper()).tzinfo is not None


def validate(schema: Any, text: str) -> None:
    """Raises when `text` is not JSON that `schema` describes."""
    jsonschema.Draft202012Validator(schema, format_checker=FORMATS).validate(json.loads(text))
