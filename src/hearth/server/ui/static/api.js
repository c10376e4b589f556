const KEY = document.querySelector('meta[name="hearth-page"]').content;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Sends a request in this session. The key shows that this page sends it.
export async function send(path, options = {}) {
  const headers = { "X-Hearth-Page": KEY, ...options.headers };
  try {
    return await fetch(`/ui${path}`, { ...options, headers, credentials: "same-origin", redirect: "error", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The node does not answer. Is it still running?");
  }
}

export async function get(path, options) {
  return read(await send(path, options));
}

export async function change(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  return read(await send(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) }));
}

async function read(answer) {
  if (!answer.ok) throw new ApiError(answer.status, await messageOf(answer));
  return answer.status === 204 ? {} : answer.json();
}

export async function messageOf(answer) {
  try {
    const body = await answer.json();
    return body.error?.message ?? body.message ?? `status ${answer.status}`;
  } catch {
    return `status ${answer.status}`;
  }
}

// Calls back with each live message until the signal aborts. Connects again after a loss.
export async function live(query, signal, callback) {
  while (!signal.aborted) {
    try {
      const answer = await send(`/data/live${query}`, { signal });
      if (answer.status === 401 || answer.status === 403) return;
      if (answer.ok) await messages(answer, callback);
    } catch (error) {
      if (signal.aborted) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 5000));
  }
}

async function messages(answer, callback) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) callback(JSON.parse(part.replace(/^data: /, "")));
  }
}

export const query = (values) => {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== "" && one !== undefined) found.append(name, one);
  }
  return found.size ? `?${found}` : "";
};

export const segment = (text) => encodeURIComponent(text);
// The path of a route keeps its slashes.
export const routePath = (path) => path.split("/").filter((part, place) => place > 0 || part).map(encodeURIComponent).join("/");
