import { get, live, messageOf, query, segment, send } from "../api.js";
import { chart } from "../charts.js";
import { announce, commands, empty, field, h, select, table, visible } from "../dom.js";
import { between, duration, number, quoted, status, time } from "../format.js";
import { curl } from "./apps.js";
import { made, sessionWish } from "./invoke.js";

const STATUSES = [["", "any"], ["queued", "queued"], ["running", "running"], ["success", "success"], ["error", "error"], ["timeout", "timeout"]];
const FILTERS = ["app", "path", "status", "error", "min_ms", "from", "to"];

export function callTable(calls, caption) {
  const rows = calls.map((call) => [
    h("a", { href: `#/call/${segment(call.app_name)}/${segment(call.id)}` }, visible(call.id)),
    status(call.status),
    h("a", { href: `#/function/${segment(call.app_name)}/${segment(call.path)}` }, visible(`${call.app_name} ${call.path}`)),
    time(call.created_at), { num: duration(between(call.started_at, call.completed_at)) }, visible(call.error ?? ""),
  ]);
  return table(caption, ["Call", "Status", "Function", "Created", "#Duration", "Error"], rows);
}

const seconds = (local) => (local ? Math.floor(new Date(local).getTime() / 1000) : "");

export async function calls({ me, search, signal }) {
  const chosen = Object.fromEntries(FILTERS.map((name) => [name, search.get(name) ?? ""]));
  const cursor = search.get("cursor") ?? "";
  const page = (at) => query({ app: chosen.app, path: chosen.path, status: chosen.status, error: chosen.error, min_ms: chosen.min_ms, from_time: seconds(chosen.from), to_time: seconds(chosen.to), cursor: at, per_page: 50 });
  const list = h("div", {});
  const draw = (found) => {
    const parts = [];
    if (found.calls.length) parts.push(callTable(found.calls, "Calls"));
    else parts.push(empty(found.is_cut ? "Nothing fits among the calls that were read." : "No calls.", `hearth invoke ${quoted(chosen.app || "myapp")} ${quoted(chosen.path || "/hello")}`));
    if (found.is_cut) parts.push(h("p", { class: "warn" }, `Read ${number(found.scanned)} calls for this filter, back to `, time(found.stopped_at), ". Older calls are on the next page."));
    const filters = query(chosen);
    const join = filters ? "&" : "?";
    parts.push(h("p", {}, cursor ? h("a", { href: `#/calls${filters}` }, "Newest calls") : null, " ", found.next_cursor ? h("a", { href: `#/calls${filters}${join}cursor=${segment(found.next_cursor)}` }, "Older calls") : null));
    list.replaceChildren(...parts);
  };
  draw(await get(`/data/calls${page(cursor)}`, { signal }));

  const inputs = {
    app: h("input", { value: chosen.app, spellcheck: "false" }), path: h("input", { value: chosen.path, spellcheck: "false", placeholder: "/hello" }),
    status: select(STATUSES, chosen.status), error: h("input", { value: chosen.error }), min_ms: h("input", { type: "number", min: 0, value: chosen.min_ms }),
    from: h("input", { type: "datetime-local", value: chosen.from }), to: h("input", { type: "datetime-local", value: chosen.to }),
  };
  const labels = ["App", "Function", "Status", "Text of the error", "At least (ms)", "After", "Before"];
  const submit = (event) => {
    event.preventDefault();
    const wanted = query(Object.fromEntries(FILTERS.map((name) => [name, inputs[name].value])));
    location.hash = `#/calls${wanted}`;
  };
  const form = h("form", { class: "row", onsubmit: submit, "aria-label": "Filter" }, FILTERS.map((name, place) => field(labels[place], inputs[name])), h("button", {}, "Filter"));
  const tail = h("input", { type: "checkbox" });
  let stop = new AbortController();
  tail.addEventListener("change", () => {
    stop.abort();
    stop = new AbortController();
    if (!tail.checked) return;
    announce("New calls are shown as they end");
    live("", stop.signal, async () => {
      const found = await get(`/data/calls${page("")}`, { signal: stop.signal }).catch(() => null);
      // A reader who is inside the list keeps it.
      if (found && !stop.signal.aborted && !list.contains(document.activeElement)) draw(found);
    });
  });
  signal.addEventListener("abort", () => stop.abort());
  const options = chosen.app ? `hearth calls list ${quoted(chosen.app)}` : "hearth calls list myapp";
  const at = chosen.app ? `/v1/apps/${segment(chosen.app)}/calls${query({ status: chosen.status, path: chosen.path })}` : "/v1/apps/myapp/calls";
  return {
    title: "Calls",
    content: [form, cursor ? null : h("p", {}, h("label", {}, tail, " Show new calls as they end")), list, commands([["hearth", options], ["curl", `${curl(me)} ${quoted(location.origin + at)}`]])],
  };
}

export async function call({ me, parameters, signal }) {
  const [app, id] = parameters;
  const at = `/api/v1/apps/${segment(app)}/calls/${segment(id)}`;
  const [{ call: found }, answer] = await Promise.all([get(at, { signal }), send(`${at}/log`, { headers: { Accept: "text/plain" }, signal })]);
  const text = answer.ok ? await answer.text() : null;
  const problem = answer.ok ? "" : await messageOf(answer);
  const waited = between(found.created_at, found.started_at);
  const ran = between(found.started_at, found.completed_at);
  const again = () => {
    sessionWish.id = id;
    location.hash = `#/function/${segment(app)}/${segment(found.path)}`;
  };
  const content = [
    h("dl", { class: "facts" }, [
      ["Status", status(found.status)], ["Function", h("a", { href: `#/function/${segment(app)}/${segment(found.path)}` }, visible(`${app} ${found.path}`))],
      ["Answer", found.response_status ? String(found.response_status) : "–"], ["Error", found.error ? h("span", { class: "bad" }, visible(found.error)) : "none"],
      found.origin ? ["Made by", visible(found.origin)] : null,
      found.dead ? ["Not tried again", me.can.dead_letters ? h("a", { href: `#/dead/${segment(app)}` }, "Dead letters") : "yes"] : null,
    ].filter(Boolean).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    h("h2", {}, "Timeline"),
    h("ol", { class: "timeline" },
      h("li", {}, "Created ", time(found.created_at)),
      waited === undefined ? null : h("li", {}, `Waited ${duration(waited)}`),
      waited === undefined ? null : h("li", {}, "Started ", time(found.started_at)),
      ran === undefined ? null : h("li", {}, `Ran ${duration(ran)}`),
      ran === undefined ? null : h("li", {}, "Completed and stored ", time(found.completed_at))),
    ...attempts(found),
    me.can.call && me.runs_calls ? h("p", {}, h("button", { type: "button", onclick: again }, "Run again"), " ",
      h("small", { class: "muted" }, made.has(id) ? "Opens the form with the same request." : "Opens an empty form: the node does not keep the requests of calls.")) : null,
    h("h2", {}, "Log"),
    text === null ? empty(visible(problem), null) : logView(text),
    h("h2", {}, "Answer"),
    result(`${at}/result`, signal),
    h("h2", {}, "Resources"),
    ...stats(found.stats ?? [], signal),
    commands([
      ["hearth", `hearth calls get ${quoted(app)} ${quoted(id)}`], ["hearth log", `hearth logs get ${quoted(app)} ${quoted(id)}`],
      ["curl", `${curl(me)} ${quoted(location.origin + at.slice(4))}`],
    ]),
  ];
  return { title: `Call ${visible(id)}`, content };
}

// The attempts before this one.
function attempts(found) {
  if (!found.attempts?.length) return [];
  const rows = found.attempts.map((one) => [{ num: one.attempt }, time(one.started_at ?? ""), time(one.completed_at), visible(one.node ?? ""), status(one.status), visible(one.error ?? "")]);
  return [h("h2", {}, "Earlier attempts"), table("Earlier attempts", ["#Attempt", "Started", "Ended", "Node", "Status", "Error"], rows), h("p", {}, `This record is of attempt ${found.attempt}.`)];
}

// The answer of an async call, on demand: the node keeps those of sync calls for nobody.
function result(path, signal) {
  const shown = h("div", {});
  const show = async () => {
    const answer = await send(path, { headers: { Accept: "*/*" }, signal });
    if (!answer.headers.has("Fn-Call-Status")) {
      shown.replaceChildren(empty(answer.status === 202 ? "The call has not ended." : visible(await messageOf(answer)), null));
      return;
    }
    const text = await answer.text();
    shown.replaceChildren(h("p", {}, `Status ${answer.status}`), h("pre", { tabindex: 0, "aria-label": "Answer" }, visible(text.slice(0, MOST))));
  };
  return h("div", {}, h("p", {}, h("button", { type: "button", onclick: show }, "Show the stored answer")), shown);
}

const MOST = 512 * 1024;
const MOST_HITS = 1000;

function logView(text) {
  if (!text) return empty("The function wrote nothing.", null);
  const shown = visible(text.slice(0, MOST));
  const view = h("pre", { tabindex: 0, "aria-label": "Log" }, shown);
  const count = h("span", { role: "status", class: "muted" });
  const search = h("input", { type: "search", spellcheck: "false" });
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase();
    const parts = [];
    let from = 0;
    let hits = 0;
    // Lower case may be longer than the text; then places differ, and only exact spelling is found.
    const plain = shown.toLowerCase().length === shown.length ? shown.toLowerCase() : shown;
    for (let hit = wanted ? plain.indexOf(wanted) : -1; hit >= 0 && hits < MOST_HITS; hit = plain.indexOf(wanted, from)) {
      parts.push(shown.slice(from, hit), h("mark", {}, shown.slice(hit, hit + wanted.length)));
      from = hit + wanted.length;
      hits += 1;
    }
    view.replaceChildren(...parts, shown.slice(from));
    count.textContent = wanted ? `${hits}${hits === MOST_HITS ? " or more" : ""} found` : "";
    view.querySelector("mark")?.scrollIntoView({ block: "nearest" });
  });
  return h("div", {}, h("form", { class: "row", onsubmit: (event) => event.preventDefault(), role: "search", "aria-label": "Search the log" }, field("Search the log", search), count), view,
    text.length > MOST ? h("p", { class: "muted" }, `The first ${MOST} of ${text.length} characters; the command below prints all.`) : null);
}

function stats(samples, signal) {
  if (samples.length < 2) return [empty("There are no samples: short calls end before the first.", null)];
  const first = new Date(samples[0].timestamp) / 1000;
  const step = (new Date(samples.at(-1).timestamp) / 1000 - first) / (samples.length - 1) || 1;
  const column = (name, scale) => samples.map((one) => (one.metrics[name] ?? 0) / scale);
  const history = { end: first + step * samples.length, step_s: step, columns: { memory: column("mem_usage", 1048576), cpu: column("cpu_total", 1) } };
  const charts = [chart("Memory", " MiB", [["memory", "used", 1]]), chart("Processor", " %", [["cpu", "total", 3]])];
  document.getElementById("main").addEventListener("hearth-shown", () => charts.forEach((one) => one.set(history)), { once: true, signal });
  addEventListener("hearth-theme", () => charts.forEach((one) => one.draw()), { signal });
  signal.addEventListener("abort", () => charts.forEach((one) => one.close()));
  return [h("div", { class: "charts" }, charts.map((one) => one.figure))];
}
