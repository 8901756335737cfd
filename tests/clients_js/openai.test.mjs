// The client of OpenAI, unmodified, against the gateway that BASE and KEY name.
import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

const base = process.env.BASE;
const client = new OpenAI({ baseURL: base + "/v1", apiKey: process.env.KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];
const greedy = { model: "demo", temperature: 0, max_completion_tokens: 8 };
const endless = { ignore_eos: true };

const live = async () => {
  const answer = await fetch(base + "/chimera/v1/stats", {
    headers: { authorization: "Bearer " + process.env.KEY },
  });
  const { engine } = await answer.json();
  return engine.live + engine.waiting;
};
const until = async (condition) => {
  const end = Date.now() + 60000;
  while (!(await condition())) {
    assert.ok(Date.now() < end, "not within a minute");
    await new Promise((done) => setTimeout(done, 20));
  }
};

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names.slice(0, 2), ["demo", "demo:base"]);
  assert.equal((await client.models.retrieve("demo:base")).id, "demo:base");
});

test("a stream adds up to the whole", async () => {
  await client.chat.completions.create({ ...greedy, messages });  // what is cached then, is so for both
  const whole = await client.chat.completions.create({ ...greedy, messages });
  const stream = await client.chat.completions.create({
    ...greedy, messages, stream: true, stream_options: { include_usage: true },
  });
  let text = "", usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(usage, whole.usage);
  assert.equal(whole.chimera.epoch, 1);
});

test("the helper for streams", async () => {
  // One after the other: the daemon's queue holds one request, and both may come before its next step.
  const streamed = await client.chat.completions.stream({ ...greedy, messages }).finalChatCompletion();
  const whole = await client.chat.completions.create({ ...greedy, messages });
  assert.equal(streamed.choices[0].message.content, whole.choices[0].message.content);
});

test("texts", async () => {
  const answer = await client.completions.create({ model: "demo", prompt: "Hello", max_tokens: 4, logprobs: 0 });
  assert.ok(answer.choices[0].logprobs.token_logprobs.every((x) => x <= 0));
});

test("embeddings", async () => {
  const asked = { model: "demo", input: "Hello" };
  // Without a format the client asks for base64 and reads it.
  const packed = await client.embeddings.create(asked);
  const plain = await client.embeddings.create({ ...asked, encoding_format: "float" });
  const single = (answer) => answer.data.map((item) => item.embedding.map(Math.fround));
  assert.deepEqual(single(packed), single(plain));
  assert.ok(Math.abs(Math.hypot(...plain.data[0].embedding) - 1) < 1e-6);
  assert.ok(plain.usage.prompt_tokens > 0);
  assert.equal(plain.usage.total_tokens, plain.usage.prompt_tokens);
  // More inputs than the daemon has places and room in its queue.
  const texts = [...Array(40).keys()].map((i) => (i % 7 === 0 ? "Hello" : "Hello " + i));
  const many = await client.embeddings.create({ ...asked, input: texts });
  assert.deepEqual(many.data.map((d) => d.index), [...Array(40).keys()]);
  for (const [i, item] of many.data.entries()) {
    (i % 7 === 0 ? assert.deepEqual : assert.notDeepEqual)(item.embedding, packed.data[0].embedding);
  }
  const ids = await client.embeddings.create({ ...asked, input: [[1, 2, 3], [4]] });
  assert.deepEqual(ids.data[0].embedding, (await client.embeddings.create({ ...asked, input: [1, 2, 3] })).data[0].embedding);
  for (const [more, param] of [[{ dimensions: 8 }, "dimensions"], [{ encoding_format: "int8" }, "encoding_format"],
    [{ input: [] }, "input"], [{ input: ["a", ""] }, "input[1]"], [{ input: [[1], [1000000]] }, "input"]]) {
    await assert.rejects(client.embeddings.create({ ...asked, ...more }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, param);
      return true;
    });
  }
});

test("responses: a stream adds up to the whole", async () => {
  const asked = { model: "demo", input: "Hello", temperature: 0, max_output_tokens: 8 };
  const whole = await client.responses.create(asked);
  assert.equal(whole.status, "incomplete");
  assert.deepEqual(whole.incomplete_details, { reason: "max_output_tokens" });
  assert.equal(whole.usage.output_tokens, 8);
  let text = "", last;
  for await (const event of await client.responses.create({ ...asked, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.equal(last.type, "response.incomplete");
  assert.equal(text, whole.output_text);
  const streamed = await client.responses.stream(asked).finalResponse();
  assert.equal(streamed.output_text, whole.output_text);
  assert.deepEqual(streamed.usage, whole.usage);
  // The same conversation as items, and words of a chat's own.
  const chat = await client.chat.completions.create({ ...greedy, messages });
  assert.equal(whole.output_text, chat.choices[0].message.content);
  const items = [{ role: "user", content: [{ type: "input_text", text: "Hel" }, { type: "input_text", text: "lo" }] }];
  assert.equal((await client.responses.create({ ...asked, input: items })).output_text, whole.output_text);
  const format = { type: "json_schema", name: "n", schema: { type: "object", properties: { a: { enum: [1, 2] } }, required: ["a"] } };
  const parsed = await client.responses.parse({ ...asked, max_output_tokens: 200, text: { format } });
  assert.ok([1, 2].includes(JSON.parse(parsed.output_text).a));
  for (const [more, param] of [[{ previous_response_id: "r" }, "previous_response_id"], [{ store: true }, "store"],
    [{ input: [{ type: "item_reference", id: "x" }] }, "input[0].type: \"item_reference\""],
    [{ reasoning: { effort: "low" } }, "reasoning"], [{ max_output_tokens: 0 }, "max_output_tokens"]]) {
    await assert.rejects(client.responses.create({ ...asked, ...more }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, param);
      return true;
    });
  }
});

test("an abort ends the sequence", async () => {
  const abort = new AbortController();
  const stream = await client.chat.completions.create(
    { model: "demo", messages, stream: true, ...endless }, { signal: abort.signal });
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break;
  }
  abort.abort();
  await until(async () => (await live()) === 0);
});

test("errors are those that the client knows", async () => {
  const wrong = new OpenAI({ baseURL: base + "/v1", apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(wrong.models.list(), OpenAI.AuthenticationError);
  await assert.rejects(client.chat.completions.create({ model: "gpt-4", messages }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ ...greedy, messages, verbosity: "low" }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "verbosity");
    return true;
  });
});

test("a busy daemon is a 429 that the client tries again", async () => {
  // Held by requests that nobody has to read: a stream that is not read fast enough would be ended.
  const held = new AbortController();
  for (let i = 1; i <= 4; ++i) {
    client.chat.completions.create({ model: "demo", messages, ...endless }, { signal: held.signal }).catch(() => {});
    await until(async () => (await live()) === i);
  }
  await assert.rejects(client.chat.completions.create({ ...greedy, messages }), OpenAI.RateLimitError);
  const patient = new OpenAI({ baseURL: base + "/v1", apiKey: process.env.KEY, maxRetries: 20 });
  const answer = patient.chat.completions.create({ ...greedy, messages });
  held.abort();
  assert.ok((await answer).choices[0].message);
});
