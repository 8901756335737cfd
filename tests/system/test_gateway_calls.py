"""Calls that are demanded, and arguments that must fit, in the marks of every family.

What the gateway asks of the daemon is walked at random (constraint_walk), and what comes out of that is
given back to the gateway as the model's answer: whatever a model wants to say, calls are what was asked for.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
from typing import Any, Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from gateway import Gateway
from harness import BUILD, GOLDEN
from schemas import validate
from test_gateway_tools import GENERATED, ScriptedDaemon, done

SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris", "}</tool_call>", "a\"b"]},
                                           "days": {"type": "integer", "minimum": 1, "maximum": 20}},
          "required": ["city", "days"], "additionalProperties": False}
LIST = {"type": "object", "properties": {"of": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}},
        "required": ["of"], "additionalProperties": False}
WORD = {"type": "object", "properties": {"said": {"enum": ["yes", "no"]}}, "required": ["said"]}
SCHEMAS = {"weather": SCHEMA, "list-1": LIST}
MARKS = {
    "hermes": ["<think>", "</think>", "<tool_call>", "</tool_call>"],
    "llama": ["<think>", "</think>", "<|python_tag|>"],
    "mistral": ["[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]"],
    "deepseek": ["<think>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
                 "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"],
    "harmony": ["<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|return|>", "<|call|>"],
}
ANSWERS = 60  # where a model may say words, few of them call


def tools(strict: bool = True) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "strict": strict, "parameters": schema}}
            for name, schema in SCHEMAS.items()]


class CallsTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="chimera-calls-")
        self.addCleanup(scratch.cleanup)
        self.work = pathlib.Path(scratch.name)
        self.opening, self.says = "assistant: ", ""
        self.peer = ScriptedDaemon(scratch.name, self.script)
        self.addCleanup(self.peer.stop)

    def script(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if request["call"] == "tokenize":
            yield done(text=self.opening, tokens=[1])
        elif request.get("stream", True):
            yield {"event": "token", "text": self.says, "token": 1, "epoch": 3}
            yield {**GENERATED, "finish_reason": "stop"}
        else:
            yield {**GENERATED, "finish_reason": "stop", "text": self.says, "tokens": []}

    def gateway(self, dialect: str) -> Gateway:
        gateway = Gateway((self.peer.endpoints[0], self.peer.endpoints[1]), models={"dialect": dialect})
        self.addCleanup(gateway.__exit__, None, None, None)
        return gateway

    def tokenizer(self, marks: list[str], special: bool) -> pathlib.Path:
        """Letters, and the marks as tokens of their own."""
        file = json.loads((GOLDEN / "tiny312_tokenizer.json").read_text())
        first = 1 + max([*file["model"]["vocab"].values(), *(token["id"] for token in file["added_tokens"])])
        file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] not in marks]
        file["added_tokens"] += [{**file["added_tokens"][0], "id": first + i, "content": mark, "special": special}
                                 for i, mark in enumerate(marks)]
        path = self.work / f"tokenizer-{special}.json"
        path.write_text(json.dumps(file))
        return path

    def walk(self, parts: list[Any], dialect: str, special: bool) -> list[str]:
        """Answers that came to an end."""
        ran = subprocess.run([BUILD / "tests" / "constraint_walk", self.tokenizer(MARKS[dialect], special), str(ANSWERS)],
                             input=json.dumps(parts) + "\n", text=True, capture_output=True, timeout=600, check=True)
        answers = [json.loads(line) for line in ran.stdout.rstrip("\n").split("\n")]
        for answer in answers:
            self.assertIn(answer.get("end"), ("stop", "length"), answer)
        return [answer["text"] for answer in answers if answer["end"] == "stop"]

    def asked(self, gateway: Gateway, **more: Any) -> dict[str, Any]:
        answer = gateway.post("/v1/chat/completions", {
            "model": "demo", "messages": [{"role": "user", "content": "x"}], "tools": tools(), **more})
        self.assertEqual(answer.status, 200, answer.body)
        choice: dict[str, Any] = answer.json["choices"][0]
        return choice

    def check_calls(self, choice: dict[str, Any]) -> list[str]:
        calls = choice["message"].get("tool_calls", [])
        for call in calls:
            validate(SCHEMAS[call["function"]["name"]], call["function"]["arguments"])
        self.assertEqual(choice["finish_reason"], "tool_calls" if calls else "stop")
        return [call["function"]["name"] for call in calls]

    def test_what_is_demanded_is_what_comes(self) -> None:
        named = {"type": "function", "function": {"name": "list-1"}}
        kinds: list[tuple[str, dict[str, Any]]] = [
            ("must", {"tool_choice": "required"}), ("one", {"tool_choice": "required", "parallel_tool_calls": False}),
            ("named", {"tool_choice": named}), ("auto", {}), ("auto one", {"parallel_tool_calls": False}),
            ("json", {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": WORD}}})]
        for dialect in MARKS:
            gateway = self.gateway(dialect)
            # How reasoning is opened is remembered for a while, so that each has a gateway of its own.
            for opening in ("assistant: ", "<think>\n") if dialect == "deepseek" else ("assistant: ",):
                self.opening = opening
                if opening != "assistant: ":
                    gateway = self.gateway(dialect)
                for i, (kind, more) in enumerate(kinds):
                    with self.subTest(dialect=dialect, kind=kind, opening=opening):
                        self.says = ""
                        self.asked(gateway, **more)
                        request = self.peer.requests[-1]
                        self.assertFalse(request["skip_special"])
                        said = self.walk(request["constraint"]["parts"], dialect, special=i % 2 == 0)
                        self.assertGreater(len(said), ANSWERS // 4)
                        self.check_kind(gateway, kind, more, said)

    def check_kind(self, gateway: Gateway, kind: str, more: dict[str, Any], said: list[str]) -> None:
        called, silent = 0, 0
        for self.says in said:
            with self.subTest(said=self.says):
                choice = self.asked(gateway, **more)
                names = self.check_calls(choice)
                called, silent = called + bool(names), silent + (not names)
                words = choice["message"]["content"]
                if kind in ("must", "one", "named"):
                    self.assertTrue(names)
                    self.assertIsNone(words)
                if kind in ("one", "named", "auto one"):
                    self.assertLessEqual(len(names), 1)
                if kind == "named":
                    self.assertEqual(names, ["list-1"])
                if kind == "json" and not names:
                    validate(WORD, words)
        # Both happen where both may, or the test shows nothing.
        self.assertTrue(called)
        self.assertEqual(silent > 0, kind in ("auto", "auto one", "json"))

    def test_what_binds_nothing_is_no_constraint(self) -> None:
        gateway = self.gateway("hermes")
        self.asked(gateway, tools=tools(strict=False))
        self.assertNotIn("constraint", self.peer.requests[-1])
        self.asked(gateway, tools=tools(strict=False), tool_choice="none")
        self.assertNotIn("constraint", self.peer.requests[-1])
        # Without strict, arguments are any object.
        self.says = '<tool_call>{"name": "weather", "arguments": {"a": [{}]}}</tool_call>'
        self.asked(gateway, tools=tools(strict=False), tool_choice="required")
        parts = json.dumps(self.peer.requests[-1]["constraint"]["parts"])
        self.assertIn('{"json_object": true}', parts)
        self.assertNotIn("json_schema", parts)

    def test_formats_stand_behind_reasoning(self) -> None:
        asked = {"tools": [], "response_format": {"type": "json_object"}}
        self.says = "{}"
        self.asked(self.gateway("think"), **asked)
        self.assertEqual(self.peer.requests[-1]["constraint"], {"json_object": True})
        self.opening, self.says = "<think>\n", "Hm.</think>\n{}"
        choice = self.asked(self.gateway("think"), **asked)
        self.assertEqual((choice["message"]["reasoning_content"], choice["message"]["content"]), ("Hm.", "{}"))
        parts = self.peer.requests[-1]["constraint"]["parts"]
        self.assertEqual([next(iter(part)) for part in parts], ["without", "mark", "regex", "json_object"])

    def test_anthropic(self) -> None:
        gateway = self.gateway("hermes")
        self.says = '<tool_call>{"name": "list-1", "arguments": {"of": []}}</tool_call>'
        body = {"model": "demo", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}],
                "tools": [{"name": name, "input_schema": schema, "strict": True} for name, schema in SCHEMAS.items()]}

        def parts(choice: dict[str, Any]) -> Any:
            answer = gateway.post("/v1/messages", {**body, "tool_choice": choice})
            self.assertEqual(answer.json["stop_reason"], "tool_use")
            return self.peer.requests[-1]["constraint"]["parts"]

        self.asked(gateway, tool_choice="required")
        any_tool = self.peer.requests[-1]["constraint"]["parts"]
        self.assertEqual(json.dumps(parts({"type": "any"})), json.dumps(any_tool).replace("function.parameters", "input_schema"))
        named = json.dumps(parts({"type": "tool", "name": "list-1"}))
        self.assertIn("list-1", named)
        self.assertNotIn("weather", named)
        for choice, where in (({"type": "tool"}, "tool_choice.name"), ({"type": "tool", "name": "f"}, "tool_choice"),
                              ({"type": "some"}, "tool_choice.type")):
            refused = gateway.post("/v1/messages", {**body, "tool_choice": choice})
            self.assertEqual(refused.status, 400)
            self.assertIn(where, refused.json["error"]["message"])


if __name__ == "__main__":
    unittest.main()
