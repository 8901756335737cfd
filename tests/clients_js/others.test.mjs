// Frameworks that speak the API of OpenAI, unmodified.
import assert from "node:assert/strict";
import test from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { embedMany, generateText, streamText } from "ai";

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

test("embeddings of both", async () => {
  const texts = ["Hello", "Good evening", "Hello"];
  const provider = createOpenAICompatible({ name: "chimera", baseURL: base, apiKey: key });
  const { embeddings } = await embedMany({ model: provider.textEmbeddingModel("demo"), values: texts, maxRetries: 0 });
  const chain = new OpenAIEmbeddings({ model: "demo", apiKey: key, maxRetries: 0, configuration: { baseURL: base } });
  // The one asks for base64 of float32, the other for digits that give the same float32.
  const single = (vectors) => vectors.map((vector) => vector.map(Math.fround));
  assert.deepEqual(single(await chain.embedDocuments(texts)), single(embeddings));
  assert.deepEqual(single([await chain.embedQuery("Hello")]), single([embeddings[2]]));
  assert.deepEqual(embeddings[0], embeddings[2]);
  assert.notDeepEqual(embeddings[0], embeddings[1]);
});
