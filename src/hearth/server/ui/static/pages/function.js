import { change, get, live, query, routePath, segment } from "../api.js";
import { chart, extend } from "../charts.js";
import { commands, empty, h, select, table, visible } from "../dom.js";
import { number, quoted, time } from "../format.js";
import { curl } from "./apps.js";
import { callTable } from "./calls.js";
import { configForm, limitsForm } from "./config.js";
import { invokeForm } from "./invoke.js";
import { versions } from "./versions.js";

// The definition of a route of API v1, or of a fn of API v2, in one form.
async function load(app, path, signal) {
  if (path.startsWith("/")) {
    const at = `/api/v1/apps/${segment(app)}/routes/${routePath(path)}`;
    const { route } = await get(at, { signal });
    return {
      ...route, kind: `route, ${route.type}`, url: `/r/${segment(app)}/${routePath(path)}`, triggers: [],
      save: (changes) => change("PATCH", at, { route: changes }), api: at.slice(4),
    };
  }
  const { app: owner } = await get(`/api/v1/apps/${segment(app)}`, { signal });
  const { items } = await get(`/api/v2/fns${query({ app_id: owner.id, name: path })}`, { signal });
  if (!items.length) throw new Error("Function not found");
  const [fn] = items;
  const triggers = await get(`/api/v2/triggers${query({ app_id: owner.id, fn_id: fn.id })}`, { signal });
  return {
    ...fn, kind: "fn", format: "http-stream", url: `/invoke/${fn.id}`, triggers: triggers.items,
    save: (changes) => change("PUT", `/api/v2/fns/${fn.id}`, { id: fn.id, ...changes }), api: `/v2/fns/${fn.id}`,
  };
}

export async function func({ me, parameters, signal, again }) {
  const [app, path] = parameters;
  const which = query({ app, path });
  const [found, recent, calls] = await Promise.all([
    load(app, path, signal),
    get(`/data/history${which}`, { signal }),
    me.can.calls ? get(`/data/calls${query({ app, path, per_page: 10 })}`, { signal }) : { calls: [] },
  ]);
  const past = await get(`/api/v1/apps/${segment(app)}/versions${query({ function: path.startsWith("/") ? path : found.id })}`, { signal });
  const editable = path.startsWith("/") ? me.can.edit_routes : me.can.edit_fns;
  const number_ = (value, low, high) => h("input", { type: "number", value, min: low, max: high, required: true });
  const save = async (changes) => {
    await found.save(changes);
    again();
  };
  const limits = [
    ["memory", "Memory (MiB)", number_(found.memory, 4, 8192)],
    ["timeout", "Timeout (s)", number_(found.timeout, 0, 3600)],
    ["idle_timeout", "Idle timeout (s)", number_(found.idle_timeout, 0, 3600)],
    ...(path.startsWith("/") ? [["type", "Type", select([["sync", "sync"], ["async", "async"]], found.type)]] : []),
  ];
  const content = [
    facts(app, found),
    ...(me.runs_calls ? numbers(recent, which, signal) : []),
    me.can.call && me.runs_calls ? h("h2", {}, "Invoke") : null,
    me.can.call && me.runs_calls ? invokeForm({ app, path, url: found.url, signal, me }) : null,
    h("h2", {}, "Newest calls"),
    calls.calls.length ? callTable(calls.calls, "Newest calls") : empty("There are no calls yet.", `hearth invoke ${quoted(app)} ${quoted(path)}`),
    calls.calls.length ? h("p", {}, h("a", { href: `#/calls${which}` }, "All calls of this function")) : null,
    h("h2", {}, "Versions"),
    versions(past.versions, app, path, editable, save),
    editable ? h("h2", {}, "Limits") : null,
    editable ? limitsForm(limits, save) : null,
    h("h2", {}, "Environment"),
    configForm(found.config, editable && me.can.config, (config) => save({ config })),
    path.startsWith("/") ? null : h("h2", {}, "Triggers"),
    path.startsWith("/") ? null : triggers(app, path, found.triggers),
    commands([
      ["hearth", path.startsWith("/") ? `hearth routes inspect ${quoted(app)} ${quoted(path)}` : `fn inspect function ${quoted(app)} ${quoted(path)}`],
      path.startsWith("/") ? ["versions", `hearth versions ${quoted(app)} ${quoted(path)}\nhearth rollback ${quoted(app)} ${quoted(path)}`] : null,
      ["invoke", path.startsWith("/") ? `hearth invoke ${quoted(app)} ${quoted(path)}` : `fn invoke ${quoted(app)} ${quoted(path)}`],
      ["curl", `${curl(me)} ${quoted(location.origin + found.api)}`],
      ["curl call", `curl -d '{}' ${quoted(location.origin + found.url)}`],
    ].filter(Boolean)),
  ];
  return { title: `${visible(app)} ${visible(path)}`, content };
}

/** The containers that each node keeps ready, and may have: fields of a route, or annotations of a fn. */
function bounds(found) {
  const of = (name) => found[name] ?? (found.annotations ?? {})[`hearth/${name}`];
  return `${of("min_instances") ?? 0} ready, ${of("max_instances") ?? "any number"} at most`;
}

function facts(app, found) {
  const rows = [
    ["App", h("a", { href: `#/app/${segment(app)}` }, visible(app))], ["Kind", found.kind], ["Format", found.format],
    ["Version (image)", h("code", {}, visible(found.image))], ["Memory", `${found.memory} MiB`],
    ["CPU", found.cpus || "no limit"], ["Containers per node", bounds(found)], ["Timeout", `${found.timeout} s`], ["Idle timeout", `${found.idle_timeout} s`],
    ["Secrets", visible((found.secrets ?? []).join(", ")) || "none"], ["Callers show", found.auth || "what the app asks for"], ["Changed", time(found.updated_at)],
  ];
  return h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function triggers(app, path, found) {
  if (!found.length) return empty("There are no triggers.", `fn create trigger ${quoted(app)} ${quoted(path)} TRIGGER --type http --source /path`);
  return table("Triggers", ["Name", "Type", "Source"], found.map((one) => [visible(one.name), one.type, h("code", {}, visible(one.source))]));
}

function numbers(recent, which, signal) {
  const history = recent.function;
  const charts = [
    [chart("Calls and errors per minute", "", [["calls", "calls", 1], ["errors", "errors", 2], ["cold_starts", "cold starts", 4]]), 1],
    [chart("Latency", " ms", [["p50_ms", "p50", 1], ["p95_ms", "p95", 3], ["p99_ms", "p99", 4]]), 1],
  ];
  const state = Object.fromEntries(["waiting", "starting", "idle", "busy", "calls waiting", "calls running", "error rate (hour)"].map((name) => [name, h("dd", {}, "0")]));
  const draw = (now) => {
    const { containers } = now;
    const sum = (name) => history.columns[name].reduce((all, one) => all + one, 0);
    const values = [containers.wait, containers.start, containers.idle, containers.busy, now.queued, now.running];
    values.forEach((value, place) => (Object.values(state)[place].textContent = number(value)));
    state["error rate (hour)"].textContent = sum("calls") ? `${number((sum("errors") / sum("calls")) * 100)} %` : "–";
    for (const [one, scale] of charts) one.set(history, scale);
  };
  document.getElementById("main").addEventListener("hearth-shown", () => draw(recent.now), { once: true, signal });
  addEventListener("hearth-theme", () => charts.forEach(([one]) => one.draw()), { signal });
  signal.addEventListener("abort", () => charts.forEach(([one]) => one.close()));
  live(which, signal, (message) => {
    if (!message.function || signal.aborted) return;
    extend(history, message.function.end, message.function.row);
    draw(message.function);
  });
  return [
    h("h2", {}, "Containers"),
    h("dl", { class: "tiles" }, Object.entries(state).map(([name, value]) => h("div", { class: "tile" }, h("dt", {}, name), value))),
    h("div", { class: "charts" }, charts.map(([one]) => one.figure)),
    h("h2", {}, "Latency since the start of the node"),
    histogram(history),
  ];
}

function histogram(history) {
  const most = Math.max(...history.times);
  if (!most) return empty("No call has ended yet.", null);
  const names = [...history.bounds_s.map((bound) => `≤ ${bound < 1 ? `${bound * 1000} ms` : `${bound} s`}`), "longer"];
  return h("div", { class: "bars" }, history.times.map((count, place) => h("div", {}, h("span", {}, names[place]),
    h("meter", { min: 0, max: most, value: count, "aria-label": `${names[place]}: ${count} calls` }), h("span", {}, number(count)))));
}
