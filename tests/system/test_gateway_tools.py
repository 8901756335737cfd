"""Tools and reasoning through the gateway: what the daemon is asked, and what becomes of its text.

The daemon is a script that renders as chat templates do and says what the models of each family would.
Special tokens in a real daemon's text are in test_chat.py.
"""
import json
import pathlib
import sys
import tempfile
import unittest
from typing import Any, Callable, Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from gateway import Answer, Gateway
from harness import SOURCE

sys.path.insert(0, str(SOURCE / "clients" / "cli"))
from scripted import GENERATED, done
from scripted import Daemon as ScriptedDaemon

WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
ARGUMENTS = {"city": "Paris"}
# What each family's template makes of a call, and what its model says: reasoning, words, a call.
FAMILIES = {
    "hermes": ('<tool_call>\n{"name": "sample_tool", "arguments": {"a": 1}}\n</tool_call>',
               '<think>\nParis.\n</think>\n\nI look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n'
               "</tool_call>"),
    "llama": ('{"name": "sample_tool", "parameters": {"a": 1}}<|eot_id|>',
              '<think>Paris.</think><|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}'),
    "mistral": ('[TOOL_CALLS] [{"name": "sample_tool", "arguments": {"a": 1}, "id": "a1b2c3d4e"}]',
                '[THINK]Paris.[/THINK]I look.[TOOL_CALLS]weather[ARGS]{"city": "Paris"}'),
    "deepseek": ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>sample_tool\n```json\n{\"a\": 1}\n```",
                 "Paris.</think>I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n"
                 "```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
    "harmony": ('<|start|>assistant<|channel|>commentary to=functions.sample_tool <|constrain|>json<|message|>{"a": 1}',
                "<|channel|>analysis<|message|>Paris.<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
                '<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>'
                '{"city": "Paris"}'),
}


class ToolsTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="chimera-tools-")
        self.addCleanup(scratch.cleanup)
        self.rendering, self.opening, self.says = "", "assistant: ", ""
        self.fails: dict[str, Any] | None = None
        self.peer = ScriptedDaemon(scratch.name, self.script)
        self.addCleanup(self.peer.stop)

    def script(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if request["call"] == "tokenize":
            if self.fails:
                yield self.fails
            elif not self.rendering and "tools" in request:
                yield {"event": "error", "code": "invalid_argument", "message": "no tools", "hint": ""}
            else:
                shown = self.rendering if len(request["messages"]) > 1 else ""
                yield done(text=shown + self.opening, tokens=[1])
        elif request["call"] == "chat":
            if not request.get("stream", True):
                yield {**GENERATED, "finish_reason": "stop", "text": self.says, "tokens": []}
                return
            for i in range(0, len(self.says), 3):
                yield {"event": "token", "text": self.says[i:i + 3], "token": 1, "epoch": 3}
            yield {**GENERATED, "finish_reason": "stop"}

    def gateway(self, **models: Any) -> Gateway:
        gateway = Gateway((self.peer.endpoints[0], self.peer.endpoints[1]), models=models)
        self.addCleanup(gateway.__exit__, None, None, None)
        return gateway

    def chat(self, gateway: Gateway, **more: Any) -> Answer:
        return gateway.post("/v1/chat/completions", {
            "model": "demo", "messages": [{"role": "user", "content": "Rain?"}], "tools": [WEATHER], **more})

    def families(self, check: Callable[[str, Gateway], None]) -> None:
        for family, (self.rendering, self.says) in FAMILIES.items():
            self.opening = "<think>\n" if family == "deepseek" else "assistant: "
            with self.subTest(family=family):
                gateway = Gateway((self.peer.endpoints[0], self.peer.endpoints[1]))
                with gateway:
                    self.peer.requests.clear()
                    check(family, gateway)

    def test_chats_of_every_family(self) -> None:
        def check(family: str, gateway: Gateway) -> None:
            words = None if family == "llama" else "I look."
            choice = self.chat(gateway).json["choices"][0]
            message = choice["message"]
            self.assertEqual((choice["finish_reason"], message["reasoning_content"], message["content"]),
                             ("tool_calls", "Paris.", words))
            (call,) = message["tool_calls"]
            self.assertEqual((call["type"], call["function"]["name"], json.loads(call["function"]["arguments"])),
                             ("function", "weather", ARGUMENTS))
            self.assertRegex(call["id"], "^[0-9a-f]{9}$" if family == "mistral" else "^call_[0-9a-f]{16}$")
            asked = self.peer.requests[-1]
            self.assertEqual(asked["tools"], [WEATHER])
            self.assertEqual(asked.get("skip_special", True), family == "hermes")
            # A stream adds up to the same.
            chunks = [c["choices"][0] for c in self.chat(gateway, stream=True).events()[:-1]]
            self.assertEqual("".join(c["delta"].get("reasoning_content", "") for c in chunks), "Paris.")
            self.assertEqual("".join(c["delta"].get("content", "") for c in chunks), words or "")
            (streamed,) = [call for c in chunks for call in c["delta"].get("tool_calls", [])]
            self.assertEqual((streamed["index"], streamed["function"]), (0, call["function"]))
            self.assertEqual((chunks[-1]["delta"], chunks[-1]["finish_reason"]), ({}, "tool_calls"))

        self.families(check)

    def test_messages_of_every_family(self) -> None:
        def check(family: str, gateway: Gateway) -> None:
            body = {"model": "demo", "max_tokens": 99, "messages": [{"role": "user", "content": "Rain?"}],
                    "tools": [{"name": "weather", "description": "of a city",
                               "input_schema": WEATHER["function"]["parameters"]}]}
            answer = gateway.post("/v1/messages", body).json
            expected = [{"type": "thinking", "thinking": "Paris.", "signature": ""}]
            if family != "llama":
                expected.append({"type": "text", "text": "I look."})
            self.assertEqual(answer["content"][:-1], expected)
            use = answer["content"][-1]
            self.assertEqual((use["type"], use["name"], use["input"], answer["stop_reason"]),
                             ("tool_use", "weather", ARGUMENTS, "tool_use"))
            self.assertEqual(self.peer.requests[-1]["tools"], [WEATHER])
            events = gateway.post("/v1/messages", {**body, "stream": True}).events()
            blocks = [e["content_block"] for e in events if e["type"] == "content_block_start"]
            self.assertEqual([b["type"] for b in blocks], [b["type"] for b in answer["content"]])
            self.assertEqual([e["index"] for e in events if e["type"] == "content_block_stop"], list(range(len(blocks))))
            deltas = [e["delta"] for e in events if e["type"] == "content_block_delta"]
            self.assertEqual("".join(d.get("thinking", "") for d in deltas), "Paris.")
            self.assertEqual(json.loads("".join(d.get("partial_json", "") for d in deltas)), ARGUMENTS)
            self.assertEqual(events[-2]["delta"]["stop_reason"], "tool_use")

        self.families(check)

    def test_results_go_back_to_the_model(self) -> None:
        self.rendering, self.says = FAMILIES["hermes"][0], "It rains."
        gateway = self.gateway()
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}
        history = [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                   {"role": "tool", "tool_call_id": "c1", "content": "yes"}]
        answer = self.chat(gateway, messages=history).json["choices"][0]
        self.assertEqual((answer["message"]["content"], answer["finish_reason"]), ("It rains.", "stop"))
        self.assertEqual(self.peer.requests[-1]["messages"], history)
        blocks = [{"role": "user", "content": "Rain?"},
                  {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""},
                                                    {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS}]},
                  {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "yes"},
                                               {"type": "text", "text": "Well?"}]}]
        gateway.post("/v1/messages", {"model": "demo", "max_tokens": 9, "messages": blocks})
        sent = self.peer.requests[-1]["messages"]
        self.assertEqual([m["role"] for m in sent], ["user", "assistant", "tool", "user"])
        self.assertEqual((sent[1]["content"], sent[1]["reasoning_content"]), ("", "Hm."))
        self.assertEqual(json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]), ARGUMENTS)
        self.assertEqual(sent[2], {"role": "tool", "tool_call_id": "c1", "content": "yes", "name": "weather"})

    def test_choices_of_tools(self) -> None:
        self.rendering, self.says = FAMILIES["hermes"]
        gateway = self.gateway()
        none = self.chat(gateway, tool_choice="none").json["choices"][0]["message"]
        self.assertNotIn("tools", self.peer.requests[-1])
        self.assertNotIn("tool_calls", none)
        self.assertIn("<tool_call>", none["content"])
        self.says = '<tool_call>{"name":"weather","arguments":{}}</tool_call>' * 2
        for parallel, calls in ((True, 2), (False, 1)):
            message = self.chat(gateway, parallel_tool_calls=parallel).json["choices"][0]["message"]
            self.assertEqual((message["content"], len(message["tool_calls"])), (None, calls))
        for more, param in (({"tool_choice": "required", "tools": []}, "tool_choice"),
                            ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
                            ({"tool_choice": {"type": "function"}}, "tool_choice.function.name"),
                            ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
                            ({"tool_choice": "sometimes"}, "tool_choice"), ({"tools": {}}, "tools"),
                            ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
                            ({"tools": [{"type": "function", "function": {"name": "two words"}}]}, "tools[0].function.name"),
                            ({"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]},
                             "tools[0].function.strict"),
                            ({"tools": [{"type": "function", "function": {"name": "f", "returns": {}}}]}, "returns")):
            with self.subTest(more=more):
                refused = self.chat(gateway, **more)
                self.assertEqual(refused.status, 400, refused.body)
                self.assertTrue(refused.json["error"]["param"].startswith(param), refused.body)

    def test_a_model_without_tools_says_so(self) -> None:
        self.says = "<think>a</think>b"
        gateway = self.gateway()  # its template raises with tools
        refused = self.chat(gateway)
        self.assertEqual((refused.status, refused.json["error"]["param"]), (400, "tools"))
        message = self.chat(gateway, tools=[]).json["choices"][0]["message"]
        self.assertEqual((message["reasoning_content"], message["content"]), ("a", "b"))

    def test_a_daemon_that_is_busy_says_nothing_of_the_dialect(self) -> None:
        self.says = FAMILIES["hermes"][1]
        self.fails = {"event": "error", "code": "resource_exhausted", "message": "queue: full", "hint": ""}
        gateway = self.gateway()
        self.assertEqual(self.chat(gateway).status, 429)
        self.fails, self.rendering = None, FAMILIES["hermes"][0]
        self.assertEqual(len(self.chat(gateway).json["choices"][0]["message"]["tool_calls"]), 1)
        self.fails = {"event": "error", "code": "unimplemented", "message": "chat: no chat template", "hint": ""}
        self.assertEqual(self.chat(self.gateway()).status, 422)

    def test_the_configuration_may_name_the_dialect(self) -> None:
        self.says = "<think>a</think>b"
        self.rendering = FAMILIES["hermes"][0]
        plain = self.gateway(dialect="plain")
        self.assertEqual(self.chat(plain, tools=[]).json["choices"][0]["message"]["content"], self.says)
        self.assertEqual([r["call"] for r in self.peer.requests], ["chat"])
        self.assertEqual(self.chat(plain).status, 400)
        self.says = FAMILIES["mistral"][1]
        mistral = self.gateway(dialect="mistral")
        self.assertEqual(len(self.chat(mistral).json["choices"][0]["message"]["tool_calls"]), 1)


if __name__ == "__main__":
    unittest.main()
