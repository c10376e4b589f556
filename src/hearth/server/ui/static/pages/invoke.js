import { get, messageOf, segment, send } from "../api.js";
import { failed, field, h, select, visible } from "../dom.js";
import { milliseconds } from "../format.js";

const LONGEST = 256 * 1024;
const LOG_TRIES = 20;
const METHODS = ["POST", "GET", "PUT", "DELETE", "PATCH"];

// The requests of calls that this page has made: the node keeps no request of a sync call.
export const made = new Map();

function parsed(text) {
  const found = {};
  for (const line of text.split("\n").map((one) => one.trim()).filter(Boolean)) {
    const colon = line.indexOf(":");
    if (colon < 1) throw new Error(`Write headers as Name: value, one a line. This is none: ${line}`);
    const name = line.slice(0, colon).trim();
    const value = line.slice(colon + 1).trim();
    if (name.toLowerCase() === "content-type") found[name] = value;
    else found[`X-Hearth-Call-${name}`] = value;
  }
  return found;
}

export function invokeForm({ app, path, url, signal, me }) {
  const wanted = made.get(sessionWish.id) ?? {};
  sessionWish.id = "";
  const body = h("textarea", { spellcheck: "false" });
  body.value = wanted.body ?? "";
  const headers = h("textarea", { spellcheck: "false", rows: 3, placeholder: "Content-Type: application/json" });
  headers.value = wanted.headers ?? "Content-Type: application/json";
  const method = select(METHODS.map((one) => [one, one]), wanted.method ?? "POST");
  const answer = h("div", { "aria-live": "polite" });
  const log = h("pre", { tabindex: 0, "aria-label": "Log of the call" }, "The log of the call appears here.");
  const button = h("button", { class: "main" }, "Invoke");
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    answer.replaceChildren(h("p", { class: "muted" }, "Running"));
    log.textContent = "";
    try {
      const request = { method: method.value, headers: headers.value, body: body.value };
      await run(request);
    } catch (error) {
      if (!signal.aborted) answer.replaceChildren(failed(error));
    } finally {
      button.disabled = false;
    }
  };
  const run = async (request) => {
    const began = performance.now();
    const hasBody = request.method !== "GET" && request.body !== "";
    const found = await send(`/call${url}`, { method: request.method, headers: parsed(request.headers), body: hasBody ? request.body : undefined, signal });
    const text = await found.clone().text();
    const id = found.headers.get("fn_call_id") ?? found.headers.get("fn-call-id") ?? "";
    if (id) made.set(id, request);
    const lasted = milliseconds(performance.now() - began);
    const good = found.status < 400;
    answer.replaceChildren(...[
      h("p", {}, h("span", { class: good ? "good" : "bad" }, `${good ? "✓" : "✗"} Status ${found.status}`), ` after ${lasted} `,
        id && me.can.calls ? h("a", { href: `#/call/${segment(app)}/${segment(id)}` }, `Call ${visible(id)}`) : null),
      found.status === 401 ? h("p", {}, "This function asks for a token: add the header Authorization: Bearer TOKEN.") : null,
      h("pre", { tabindex: 0, "aria-label": "Answer" }, visible(text.slice(0, LONGEST)) || "(empty)"),
      text.length > LONGEST ? h("p", { class: "muted" }, `The first ${LONGEST} of ${text.length} characters`) : null,
    ].filter(Boolean));
    if (id && me.can.calls) await follow(id);
    else log.textContent = "No log: this request did not become a call, or you may not read calls.";
  };
  const follow = async (id) => {
    const at = `/api/v1/apps/${segment(app)}/calls/${segment(id)}`;
    for (let tried = 0; !signal.aborted; tried += 1) {
      const found = await send(`${at}/log`, { headers: { Accept: "text/plain" }, signal });
      if (found.ok) {
        log.textContent = visible(await found.text()) || "(the function wrote nothing)";
        return;
      }
      const problem = await messageOf(found);
      const call = await get(at, { signal }).catch(() => null);
      const isOver = call && !["queued", "running"].includes(call.call.status);
      if (found.status !== 404 || (isOver && tried > 2) || (!call && tried > LOG_TRIES)) {
        log.textContent = visible(problem);
        return;
      }
      log.textContent = call ? `The call is ${call.call.status}.` : "The call is not stored yet.";
      await new Promise((resolve) => setTimeout(resolve, Math.min(5000, 200 * (tried + 1))));
    }
  };
  return h("div", { class: "columns" },
    h("form", { onsubmit: submit, "aria-label": "Invoke the function" }, field("Method", method), field("Body", body), field("Headers", headers), h("p", {}, button), answer),
    h("div", {}, h("h3", {}, "Log"), log));
}

// The call whose request the next form is filled with.
export const sessionWish = { id: "" };
