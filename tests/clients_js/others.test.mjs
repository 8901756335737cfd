// Frameworks that speak the API of OpenAI, unmodified.
import assert from "node:assert/strict";
import test from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, streamText } from "ai";

const base = process.env.BASE + "/v1", key = process.env.KEY;

test("ai with @ai-sdk/openai-compatible", async () => {
  const model = createOpenAICompatible({ name: "chimera", baseURL: base, apiKey: key, includeUsage: true })("demo");
  const asked = { model, prompt: "Hello", temperature: 0, maxOutputTokens: 8, maxRetries: 0 };
  const whole = await generateText(asked);
  const stream = streamText(asked);
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  assert.equal(text, whole.text);
  assert.ok(whole.usage.outputTokens > 0);
});

test("@langchain/openai", async () => {
  const model = new ChatOpenAI({
    model: "demo", apiKey: key, temperature: 0, maxTokens: 8, maxRetries: 0, configuration: { baseURL: base },
  });
  const whole = await model.invoke("Hello");
  let text = "";
  for await (const piece of await model.stream("Hello")) text += piece.content;
  assert.equal(text, whole.content);
  assert.ok(whole.usage_metadata.output_tokens > 0);
});
