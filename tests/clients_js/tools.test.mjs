// Tools and reasoning with clients that nobody here wrote. The model thinks, asks for the weather, and
// once it has the result, answers.
import assert from "node:assert/strict";
import test from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";

const base = process.env.BASE, key = process.env.KEY;
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const described = { type: "function", function: { name: "weather", description: "of a city", parameters: schema } };
const question = { role: "user", content: "Does it rain in Paris?" };

test("openai: a call, its result, the answer", async () => {
  const client = new OpenAI({ baseURL: base + "/v1", apiKey: key, maxRetries: 0 });
  const asked = { model: "demo", messages: [question], tools: [described] };
  const { choices: [{ message, finish_reason }] } = await client.chat.completions.create(asked);
  assert.equal(finish_reason, "tool_calls");
  assert.equal(message.reasoning_content, "Paris.");
  assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: "Paris" });
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "rain" };
  const answer = await client.chat.completions.create({ ...asked, messages: [question, message, result] });
  assert.equal(answer.choices[0].message.content, "It rains.");

  const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
  assert.equal(streamed.choices[0].finish_reason, "tool_calls");
  assert.equal(streamed.choices[0].message.tool_calls[0].function.name, "weather");

  const cities = [];
  const runner = client.chat.completions.runTools({
    model: "demo", messages: [question], stream: true,
    tools: [{ type: "function", function: {
      ...described.function, parse: JSON.parse, function: ({ city }) => { cities.push(city); return "rain"; } } }],
  });
  assert.equal(await runner.finalContent(), "It rains.");
  assert.deepEqual(cities, ["Paris"]);
});

test("@anthropic-ai/sdk: a call, its result, the answer", async () => {
  const client = new Anthropic({ baseURL: base, apiKey: key, maxRetries: 0 });
  const asked = { model: "demo", max_tokens: 99, messages: [question],
    tools: [{ name: "weather", description: "of a city", input_schema: schema }] };
  const whole = await client.messages.create(asked);
  const streamed = await client.messages.stream(asked).finalMessage();
  for (const message of [whole, streamed]) {
    assert.equal(message.stop_reason, "tool_use");
    assert.deepEqual(message.content.map((block) => block.type), ["thinking", "text", "tool_use"]);
    assert.equal(message.content[0].thinking, "Paris.");
    assert.deepEqual(message.content[2].input, { city: "Paris" });
  }
  const result = { type: "tool_result", tool_use_id: whole.content[2].id, content: "rain" };
  const answer = await client.messages.create({ ...asked, messages: [
    question, { role: "assistant", content: whole.content }, { role: "user", content: [result] }] });
  assert.equal(answer.content[0].text, "It rains.");
});

test("ai with @ai-sdk/openai-compatible: steps with a tool", async () => {
  const model = createOpenAICompatible({ name: "chimera", baseURL: base + "/v1", apiKey: key })("demo");
  const cities = [];
  const tools = { weather: tool({ description: "of a city", inputSchema: jsonSchema(schema),
    execute: async ({ city }) => { cities.push(city); return "rain"; } }) };
  const asked = { model, prompt: question.content, tools, stopWhen: stepCountIs(3), maxRetries: 0 };
  const whole = await generateText(asked);
  assert.equal(whole.text, "It rains.");
  assert.equal(whole.steps[0].reasoningText, "Paris.");
  const stream = streamText(asked);
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  assert.equal(text, "I look.It rains.");
  assert.deepEqual(cities, ["Paris", "Paris"]);
});

test("@langchain/openai: tools that are bound", async () => {
  const model = new ChatOpenAI({
    model: "demo", apiKey: key, maxRetries: 0, configuration: { baseURL: base + "/v1" },
  }).bindTools([described]);
  const whole = await model.invoke(question.content);
  assert.deepEqual(whole.tool_calls.map(({ name, args }) => ({ name, args })), [{ name: "weather", args: { city: "Paris" } }]);
  let gathered;
  for await (const piece of await model.stream(question.content)) gathered = gathered ? gathered.concat(piece) : piece;
  assert.deepEqual(gathered.tool_calls[0].args, { city: "Paris" });
});

test("openai: responses with a function", async () => {
  const client = new OpenAI({ baseURL: base + "/v1", apiKey: key, maxRetries: 0 });
  const asked = { model: "demo", input: [question], tools: [
    { type: "function", name: "weather", description: "of a city", parameters: schema, strict: true }] };
  const whole = await client.responses.create(asked);
  assert.equal(whole.status, "completed");
  const events = [];
  const stream = client.responses.stream(asked);
  for await (const event of stream) events.push(event);
  const streamed = await stream.finalResponse();
  for (const { output } of [whole, streamed]) {
    assert.deepEqual(output.map((item) => item.type), ["reasoning", "message", "function_call"]);
    assert.equal(output[0].content[0].text, "Paris.");
    assert.equal(output[1].content[0].text, "I look.");
    assert.deepEqual(JSON.parse(output[2].arguments), { city: "Paris" });
  }
  assert.deepEqual(streamed.output[2].parsed_arguments, { city: "Paris" });
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  const kinds = new Set(events.map((event) => event.type));
  for (const kind of ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    "response.reasoning_text.delta", "response.reasoning_text.done", "response.output_text.delta", "response.output_text.done",
    "response.content_part.done", "response.function_call_arguments.delta", "response.function_call_arguments.done",
    "response.output_item.done", "response.completed"]) assert.ok(kinds.has(kind), kind);

  const result = { type: "function_call_output", call_id: whole.output[2].call_id, output: "rain" };
  const answer = await client.responses.create({ ...asked, input: [question, ...whole.output, result] });
  assert.equal(answer.output_text, "It rains.");
});
