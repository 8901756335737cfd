// Conversations: what was asked, and what two sides (one, unless they are compared) answered.
import { ApiError, events, request } from "../api";
import { live } from "../live";
import { store } from "../store";

export interface Piece {
  text: string;
  shares: Record<string, number>; // of the gate's mass, when it was drawn
  epoch: number;
}

export interface Answer {
  pieces: Piece[];
  state: "waiting" | "streaming" | "done" | "stopped" | "failed";
  error?: unknown;
  finish?: string;
  shares: Record<string, number>; // of the whole answer
  tokens: number;
  epoch: number;
  firstMs?: number; // from the request to the first token
  lastMs?: number; // to the last one
  version: number; // raised with each change: answers grow in place
}

export interface Turn {
  prompt: string;
  answers: Answer[][]; // by side; the last one is shown, those before were regenerated
}

/** Null: all modules there are, those that come as well. */
export type Choice = string[] | null;

export interface Settings {
  maxTokens: number;
  temperature: number;
  seed: string; // "": another one each time
}

export interface Conversation {
  compare: boolean;
  choices: [Choice, Choice];
  turns: Turn[];
  settings: Settings;
}

const fresh = (): Conversation => ({
  compare: false,
  choices: [null, []],
  turns: [],
  settings: { maxTokens: 200, temperature: 0.7, seed: "" },
});

export const conversation = store<Conversation>(fresh());
const running = new Map<Answer, AbortController>();
let model = ""; // that stands for all modules

export const isRunning = (): boolean => running.size > 0;

export function stop(): void {
  for (const controller of running.values()) controller.abort();
}

export function startAnew(): void {
  stop();
  const { compare, choices, settings } = conversation.get();
  conversation.set({ ...fresh(), compare, choices, settings });
}

export const change = (part: Partial<Conversation>): void =>
  conversation.update((now) => ({ ...now, ...part }));

const redraw = () => conversation.update((now) => ({ ...now }));
let due = false;
/** Many tokens may come between two pictures. */
function redrawSoon(): void {
  if (due) return;
  due = true;
  setTimeout(() => {
    due = false;
    redraw();
  }, 40);
}

/** False while nobody knows: then it is tried. */
export const lacksTemplate = (): boolean => live.get().info?.has_chat_template === false || withoutTemplate;
let withoutTemplate = false;

async function modelName(): Promise<string> {
  if (!model) {
    const { data } = (await (await request("/v1/models")).json()) as { data: { id: string }[] };
    model = data[0]!.id;
  }
  return model;
}

export const textOf = (answer: Answer): string => answer.pieces.map(({ text }) => text).join("");

function bodyOf(turns: Turn[], side: number, choice: Choice, settings: Settings, plain: boolean): object {
  const common = {
    model,
    max_tokens: settings.maxTokens,
    temperature: settings.temperature,
    ...(settings.seed === "" ? {} : { seed: Number(settings.seed) }),
    stream: true,
    stream_options: { include_usage: true },
    chimera: { shares: true, ...(choice ? { modules: { only: choice } } : {}) },
  };
  const asked = turns.at(-1)!.prompt;
  if (plain) return { ...common, prompt: asked };
  const messages: { role: string; content: string }[] = [];
  for (const turn of turns.slice(0, -1)) {
    messages.push({ role: "user", content: turn.prompt });
    const said = turn.answers[side]?.at(-1);
    if (said) messages.push({ role: "assistant", content: textOf(said) });
  }
  return { ...common, messages: [...messages, { role: "user", content: asked }] };
}

interface Chunk {
  choices?: { text?: string; delta?: { content?: string }; finish_reason?: string | null }[];
  usage?: { completion_tokens: number } | null;
  chimera?: { epoch?: number; shares?: Record<string, number>; modules?: Record<string, number>; backbone?: number };
  error?: { message: string; code?: string; hint?: string };
}

function take(answer: Answer, chunk: Chunk): void {
  if (chunk.error) throw new ApiError(200, chunk.error.code ?? "", chunk.error.message, chunk.error.hint);
  const from = chunk.chimera ?? {};
  answer.epoch = from.epoch ?? answer.epoch;
  if (from.modules) answer.shares = { ...from.modules, backbone: from.backbone ?? 0 };
  if (chunk.usage) answer.tokens = chunk.usage.completion_tokens;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  answer.finish = choice.finish_reason ?? answer.finish;
  const text = choice.text ?? choice.delta?.content ?? "";
  if (choice.finish_reason && !text) return;
  ++answer.tokens;
  const held = answer.pieces.at(-1);
  // A character may take several tokens: its text comes with the last of them.
  if (!text) return;
  if (held && held.text === "") answer.pieces.pop();
  answer.pieces.push({ text, shares: from.shares ?? {}, epoch: answer.epoch });
}

async function stream(answer: Answer, path: string, body: object, signal: AbortSignal): Promise<void> {
  const asked = performance.now();
  const response = await request(path, body, signal);
  for await (const data of events(response)) {
    if (data === "[DONE]") {
      answer.state = "done";
      return;
    }
    const chunk = JSON.parse(data) as Chunk;
    const before = answer.tokens;
    take(answer, chunk);
    if (answer.tokens > before && !chunk.usage) {
      const now = performance.now();
      if (before === 0) answer.firstMs = now - asked;
      answer.lastMs = now - asked;
    }
    answer.state = "streaming";
    ++answer.version;
    redrawSoon();
  }
  throw new ApiError(0, "broken", "The stream broke off.", "What came before it is shown.");
}

async function ask(turns: Turn[], side: number, answer: Answer): Promise<void> {
  const controller = new AbortController();
  running.set(answer, controller);
  redraw();
  try {
    const { choices, settings } = conversation.get();
    await modelName();
    const attempt = (plain: boolean) =>
      stream(answer, plain ? "/v1/completions" : "/v1/chat/completions",
        bodyOf(turns, side, choices[side]!, settings, plain), controller.signal);
    try {
      await attempt(lacksTemplate());
    } catch (problem) {
      if (!(problem instanceof ApiError && problem.status === 422 && problem.code === "unimplemented")) throw problem;
      withoutTemplate = true;
      await attempt(true);
    }
  } catch (problem) {
    answer.state = controller.signal.aborted ? "stopped" : "failed";
    if (!controller.signal.aborted) {
      answer.error = problem instanceof TypeError
        ? new ApiError(0, "broken", "The stream broke off.", "What came before it is shown.")
        : problem;
    }
  } finally {
    running.delete(answer);
    ++answer.version;
    redraw();
  }
}

const empty = (): Answer => ({
  pieces: [], state: "waiting", shares: {}, tokens: 0, epoch: 0, version: 0,
});

function answerLast(): void {
  const { turns, compare } = conversation.get();
  const turn = turns.at(-1)!;
  for (let side = 0; side < (compare ? 2 : 1); ++side) {
    const answer = empty();
    (turn.answers[side] ??= []).push(answer);
    void ask(turns, side, answer);
  }
}

export function send(prompt: string): void {
  conversation.update((now) => ({ ...now, turns: [...now.turns, { prompt, answers: [] }] }));
  answerLast();
}

export function regenerate(): void {
  stop();
  answerLast();
}
