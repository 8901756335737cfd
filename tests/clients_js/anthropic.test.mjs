// The client of Anthropic, unmodified, against the gateway that BASE and KEY name.
import assert from "node:assert/strict";
import test from "node:test";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.BASE, apiKey: process.env.KEY, maxRetries: 0 });
const asked = { model: "demo", max_tokens: 8, temperature: 0, messages: [{ role: "user", content: "Hello" }] };

test("a stream adds up to the whole", async () => {
  const whole = await client.messages.create(asked);
  const stream = client.messages.stream(asked);
  let text = "";
  stream.on("text", (piece) => { text += piece; });
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.deepEqual(final.content, whole.content);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
  assert.equal(final.stop_reason, whole.stop_reason);
});

test("errors are those that the client knows", async () => {
  const wrong = new Anthropic({ baseURL: process.env.BASE, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(wrong.messages.create(asked), Anthropic.AuthenticationError);
  await assert.rejects(client.messages.create({ ...asked, model: "claude" }), Anthropic.NotFoundError);
  await assert.rejects(client.messages.create({ ...asked, tools: [{ name: "a", input_schema: {} }] }),
    Anthropic.BadRequestError);
});
