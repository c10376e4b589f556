import { get, live } from "../api.js";
import { chart, extend, spark } from "../charts.js";
import { commands, empty, h, table, visible } from "../dom.js";
import { mebibytes, milliseconds, number } from "../format.js";

const tile = (name, kind = "tile") => {
  const value = h("dd", {}, "–");
  return { element: h("div", { class: kind }, h("dt", {}, name), value), set: (text) => (value.textContent = text) };
};

export async function overview({ me, signal }) {
  const [{ node, now }, busiest] = await Promise.all([get("/data/history", { signal }), get("/data/busiest", { signal })]);
  const content = [];
  if (!me.runs_calls) {
    content.push(empty("This node serves the API and runs no calls. Numbers of calls are on its runners.", "hearth start   # on a machine that runs functions, with FN_NODE_TYPE=runner"));
  } else if (node) {
    content.push(...numbers(node, now, signal));
  }
  content.push(h("h2", {}, "Busiest functions of the last hour"), list(busiest.functions, me));
  const curl = me.is_logged_in ? 'curl -H "Authorization: Bearer $FN_TOKEN"' : "curl";
  content.push(commands([["hearth", "hearth doctor"], ["curl", `${curl} ${location.origin}/metrics`], ["curl live", `${curl} -N ${location.origin}/ui/data/live`]]));
  return { title: "Overview", content };
}

function numbers(node, now, signal) {
  const tiles = {
    rate: tile("Calls per second"), errors: tile("Errors in the last hour"), p50: tile("Median latency"), p95: tile("95th percentile"),
    p99: tile("99th percentile"), cold: tile("Cold starts in the last hour"), granted: tile("Memory granted", "tile wide"),
    used: tile("Memory used"), waiting: tile("Calls waiting"), running: tile("Calls running"), queue: tile("Async queue"),
  };
  const charts = [
    [chart("Calls and errors per second", "", [["calls", "calls", 1], ["errors", "errors", 2]]), 1 / node.step_s],
    [chart("Latency", " ms", [["p50_ms", "p50", 1], ["p95_ms", "p95", 3], ["p99_ms", "p99", 4]]), 1],
    [chart("Memory", " MiB", [["granted_mib", "granted", 1], ["used_mib", "used", 3]]), 1],
    [chart("Cold starts and waiting calls", "", [["cold_starts", "cold starts", 1], ["queued", "waiting", 4]]), 1],
  ];
  const draw = (at) => {
    const { columns } = node;
    const sum = (name) => columns[name].reduce((all, one) => all + one, 0);
    // The newest row has only just started; rates are those of the last minute.
    const minute = columns.calls.slice(-13, -1);
    const last = (name) => columns[name].slice(-13).reduce((most, one) => Math.max(most, one), 0);
    tiles.rate.set(number(minute.reduce((all, one) => all + one, 0) / (minute.length * node.step_s)));
    tiles.errors.set(number(sum("errors")));
    tiles.p50.set(milliseconds(last("p50_ms")));
    tiles.p95.set(milliseconds(last("p95_ms")));
    tiles.p99.set(milliseconds(last("p99_ms")));
    tiles.cold.set(number(sum("cold_starts")));
    tiles.granted.set(`${mebibytes(at.row.granted_mib)} of ${mebibytes(at.total_mib)}`);
    tiles.used.set(at.row.used_mib ? mebibytes(at.row.used_mib) : "–");
    tiles.waiting.set(number(at.row.queued));
    tiles.running.set(number(at.row.running));
    tiles.queue.set(number(at.queue_length));
    for (const [one, scale] of charts) one.set(node, scale);
  };
  const main = document.getElementById("main");
  main.addEventListener("hearth-shown", () => draw(now), { once: true, signal });
  addEventListener("hearth-theme", () => charts.forEach(([one]) => one.draw()), { signal });
  signal.addEventListener("abort", () => charts.forEach(([one]) => one.close()));
  live("", signal, (message) => {
    if (!message.node || signal.aborted) return;
    extend(node, message.node.end, message.node.row);
    draw(message.node);
  });
  return [
    h("dl", { class: "tiles" }, Object.values(tiles).map((one) => one.element)),
    h("div", { class: "charts" }, charts.map(([one]) => one.figure)),
  ];
}

function list(functions, me) {
  if (!functions.length) {
    return empty("No function was called within the last hour.", me.can.edit_routes ? "hearth init hello && cd hello\nhearth deploy --app myapp\nhearth invoke myapp /hello" : "hearth invoke myapp /hello");
  }
  const rows = functions.map((one) => [
    h("a", { href: `#/function/${encodeURIComponent(one.app)}/${encodeURIComponent(one.path)}` }, visible(`${one.app} ${one.path}`)),
    spark(one.calls_per_minute, `${one.calls} calls in the last hour`),
    { num: number(one.calls) }, { num: number(one.errors) }, { num: milliseconds(one.p95_ms) }, { num: number(one.cold_starts) },
  ]);
  return table("Busiest functions", ["Function", "Last hour", "#Calls", "#Errors", "#Worst p95", "#Cold starts"], rows);
}
