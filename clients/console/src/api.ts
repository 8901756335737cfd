// The gateway as the page sees it: JSON there and back, errors of one kind, streams of events.
import { forgetKey, key } from "./key";
import { store } from "./store";

export class ApiError extends Error {
  constructor(
    readonly status: number, // of HTTP; 0: the gateway was not reached
    readonly code: string,
    message: string,
    readonly hint = "",
  ) {
    super(message);
  }
}

/** Why there is no key any more, for the page that asks for one. */
export const refusedKey = store("");

async function errorOf(response: Response): Promise<ApiError> {
  try {
    const { error } = (await response.json()) as { error: { code?: string; message: string; hint?: string } };
    return new ApiError(response.status, error.code ?? "", error.message, error.hint ?? "");
  } catch {
    return new ApiError(response.status, "", `The gateway answered ${response.status}.`);
  }
}

export async function request(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const sent = key.get();
  const headers: Record<string, string> = sent ? { authorization: `Bearer ${sent}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ?? null,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (problem) {
    if (signal?.aborted) throw problem;
    throw new ApiError(0, "unreachable", "The gateway does not answer.", "Is chimera-gateway running?");
  }
  if (response.ok) return response;
  const error = await errorOf(response);
  if (response.status === 401 && key.get() === sent) {
    refusedKey.set(sent ? "The gateway does not know this key." : "");
    forgetKey();
  }
  throw error;
}

export const get = async <T>(call: string): Promise<T> =>
  (await (await request(`/chimera/v1/${call}`)).json()) as T;

export const post = async <T>(call: string, fields: object): Promise<T> =>
  (await (await request(`/chimera/v1/${call}`, fields)).json()) as T;

/** The data of server-sent events, until the stream ends. */
export async function* events(response: Response): AsyncGenerator<string> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      for (const line of rest.slice(0, end).split("\n")) {
        if (line.startsWith("data: ")) yield line.slice(6);
      }
      rest = rest.slice(end + 2);
    }
  }
}
