// Calls that are demanded of a model that calls nothing by itself: its weights are noise.
import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

const base = process.env.BASE, key = process.env.KEY;
const client = new OpenAI({ baseURL: base + "/v1", apiKey: key, maxRetries: 0 });
const schema = { type: "object", properties: { city: { enum: ["Rome", "Oslo"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["city", "days"], additionalProperties: false };
const weather = { name: "weaver", parameters: schema, strict: true };
const now = { name: "now", parameters: { type: "object", properties: {}, additionalProperties: false }, strict: true };
const nested = [weather, now].map((one) => ({ type: "function", function: one }));
const flat = [weather, now].map((one) => ({ type: "function", ...one }));
const messages = [{ role: "user", content: "Hello" }];

const native = async (call, body) => {
  const answer = await fetch(base + "/chimera/v1/" + call, { method: "POST", body: JSON.stringify(body),
    headers: { authorization: "Bearer " + key, "content-type": "application/json" } });
  return answer.json();
};
// Without this letter it cannot begin to think, which noise would never end.
const logit_bias = {};
for (let token = 0; token < 312; ++token) {
  const { text } = await native("detokenize", { tokens: [token] });
  if (text.includes("h")) logit_bias[token] = -100;
}
const asked = { model: "demo", temperature: 1, seed: 3, logit_bias };
const limit = { max_completion_tokens: 400 };
const check = (name, written) => {
  const { city, days, ...more } = JSON.parse(written);
  if (name === "now") return assert.deepEqual({ city, days, ...more }, { city: undefined, days: undefined });
  assert.equal(name, "weaver");
  assert.ok(["Rome", "Oslo"].includes(city) && days >= 1 && days <= 9);
  assert.deepEqual(more, {});
};

test("openai: chats", async () => {
  const named = { type: "function", function: { name: "weaver" } };
  for (const [tool_choice, seed] of [["required", 1], ["required", 2], [named, 3], [named, 4]]) {
    const whole = await client.chat.completions.create({
      ...asked, ...limit, seed, messages, tools: nested, tool_choice, parallel_tool_calls: false });
    for (const { message, finish_reason } of whole.choices) {
      assert.equal(finish_reason, "tool_calls");
      assert.equal(message.content, null);
      assert.equal(message.tool_calls.length, 1);
      const { name, arguments: written } = message.tool_calls[0].function;
      if (tool_choice === named) assert.equal(name, "weaver");
      check(name, written);
    }
  }
  const streamed = await client.chat.completions.stream({
    ...asked, ...limit, messages, tools: nested, tool_choice: named }).finalChatCompletion();
  const [call] = streamed.choices[0].message.tool_calls;
  assert.ok(call.function.parsed_arguments.days > 0);
});

test("openai: responses", async () => {
  const more = { ...asked, max_output_tokens: 400, input: "Hello", tools: flat, parallel_tool_calls: false };
  const whole = await client.responses.create({ ...more, tool_choice: "required" });
  assert.deepEqual(whole.output.map((item) => item.type), ["function_call"]);
  check(whole.output[0].name, whole.output[0].arguments);
  const streamed = await client.responses.stream({ ...more, tool_choice: { type: "function", name: "weaver" } }).finalResponse();
  assert.ok(streamed.output[0].parsed_arguments.days > 0);
});

test("what cannot be kept to is refused by its name", async () => {
  const wrong = { ...weather, parameters: { type: "object", properties: { a: { not: {} } } } };
  await assert.rejects(client.chat.completions.create({
    ...asked, ...limit, messages, tools: [{ type: "function", function: wrong }] }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.match(error.message, /tools\[0\]\.function\.parameters\.properties\.a: keyword "not"/);
    return true;
  });
});
