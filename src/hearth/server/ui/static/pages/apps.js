import { change, get, query, segment } from "../api.js";
import { spark } from "../charts.js";
import { commands, empty, failed, field, h, table, visible } from "../dom.js";
import { milliseconds, number, quoted, time } from "../format.js";
import { configForm } from "./config.js";
import { schedules } from "./schedules.js";

const PAGE = 50;
export const curl = (me) => (me.is_logged_in ? 'curl -H "Authorization: Bearer $FN_TOKEN"' : "curl");

const activity = (one) => [
  one ? spark(one.calls_per_minute, `${number(one.calls)} calls in the last hour`) : h("span", { class: "muted" }, "no calls"),
  { num: number(one?.calls) },
  { num: h("span", { class: one?.errors ? "bad" : undefined }, number(one?.errors)) },
  { num: milliseconds(one?.p95_ms) },
];

export const health = (one) => {
  if (!one?.calls) return h("span", { class: "muted" }, "– idle");
  const share = one.errors / one.calls;
  return share === 0 ? h("span", { class: "good" }, "✓ healthy") : h("span", { class: share > 0.05 ? "bad" : "warn" }, `✗ ${number(share * 100)} % errors`);
};

const cells = (values) => values.map((value) => (value.num instanceof Node ? value.num : value));

export async function apps({ me, search, signal, again }) {
  const cursor = search.get("cursor") ?? "";
  const found = await get(`/api/v1/apps${query({ per_page: PAGE, cursor })}`, { signal });
  const names = found.apps.map((app) => app.name);
  const recent = names.length ? (await get(`/data/activity${query({ app: names })}`, { signal })).apps : {};
  const content = [];
  if (me.can.edit_apps && !me.apps.length) content.push(create(again));
  if (!names.length) content.push(empty("There are no apps.", "hearth apps create myapp"));
  else {
    const rows = found.apps.map((app) => [h("a", { href: `#/app/${segment(app.name)}` }, visible(app.name)), health(recent[app.name]), ...cells(activity(recent[app.name])), time(app.updated_at)]);
    content.push(table("Apps", ["App", "Health", "Last hour", "#Calls", "#Errors", "#Worst p95", "Changed"], rows));
  }
  content.push(pager("#/apps", found.next_cursor, cursor));
  content.push(commands([["hearth", "hearth apps list"], ["curl", `${curl(me)} ${location.origin}/v1/apps`]]));
  return { title: "Apps", content };
}

export function pager(path, next, cursor) {
  if (!next && !cursor) return null;
  const join = path.includes("?") ? "&" : "?";
  return h("p", {}, cursor ? h("a", { href: path }, "First page") : null, " ", next ? h("a", { href: `${path}${join}cursor=${segment(next)}` }, "Next page") : null);
}

function create(again) {
  const name = h("input", { required: true, maxlength: 30, pattern: "[0-9A-Za-z_\\-]+" });
  const problem = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    try {
      await change("POST", "/api/v1/apps", { app: { name: name.value } });
      location.hash = `#/app/${segment(name.value)}`;
    } catch (error) {
      problem.replaceChildren(failed(error));
    }
  };
  return h("div", {}, h("form", { class: "row", onsubmit: submit, "aria-label": "Create an app" }, field("New app", name), h("button", {}, "Create")), problem);
}

export async function app({ me, parameters, search, signal, again }) {
  const [name] = parameters;
  const cursor = search.get("cursor") ?? "";
  const path = `/api/v1/apps/${segment(name)}`;
  const { app: found } = await get(path, { signal });
  const [routes, fns, secrets, timed] = await Promise.all([
    get(`${path}/routes${query({ per_page: PAGE, cursor })}`, { signal }),
    found.id && !cursor ? get(`/api/v2/fns${query({ app_id: found.id, per_page: 100 })}`, { signal }) : { items: [] },
    me.can.secrets ? get(`${path}/secrets`, { signal }) : { secrets: [] },
    me.can.schedules ? get(`${path}/schedules`, { signal }) : { schedules: [] },
  ]);
  const functions = [...fns.items.map((fn) => ({ path: fn.name, image: fn.image, memory: fn.memory, kind: "fn" })), ...routes.routes.map((route) => ({ ...route, kind: route.type }))];
  const recent = {};
  for (let place = 0; place < functions.length; place += 100) {
    const paths = functions.slice(place, place + 100).map((one) => one.path);
    Object.assign(recent, (await get(`/data/activity${query({ app: name, path: paths })}`, { signal })).functions);
  }
  const rows = functions.map((one) => [
    h("a", { href: `#/function/${segment(name)}/${segment(one.path)}` }, visible(one.path)),
    health(recent[one.path]), ...cells(activity(recent[one.path])), one.kind, { num: `${one.memory} MiB` }, h("code", {}, visible(one.image)),
  ]);
  const content = [
    rows.length
      ? table("Functions", ["Function", "Health", "Last hour", "#Calls", "#Errors", "#Worst p95", "Type", "#Memory", "Version (image)"], rows)
      : empty("This app has no functions.", `hearth init hello && cd hello\nhearth deploy --app ${quoted(name)}`),
    pager(`#/app/${segment(name)}`, routes.next_cursor, cursor),
    h("p", {}, h("a", { href: `#/calls${query({ app: name })}` }, "Calls of this app"), me.can.dead_letters ? [" ", h("a", { href: `#/dead/${segment(name)}` }, "Dead letters")] : null),
    h("h2", {}, "Schedules"),
    schedules(timed.schedules, name, Object.fromEntries(fns.items.map((fn) => [fn.id, fn.name])), me.can, again),
    h("h2", {}, "Configuration"),
    configForm(found.config, me.can.edit_apps && me.can.config, async (config) => {
      await change("PATCH", path, { app: { config } });
      again();
    }),
    h("h2", {}, "Secrets"),
    secrets.secrets.length
      ? table("Secrets", ["Name", "Changed", "#Version"], secrets.secrets.map((one) => [h("code", {}, visible(one.name)), time(one.updated_at), { num: one.version }]))
      : empty("There are no secrets. Values are never shown.", `hearth secrets set ${quoted(name)} NAME`),
    commands([
      ["hearth", `hearth routes list ${quoted(name)}`],
      ["hearth config", `hearth apps config set ${quoted(name)} KEY value`],
      ["curl", `${curl(me)} ${quoted(`${location.origin}/v1/apps/${segment(name)}/routes`)}`],
    ]),
  ];
  return { title: `App ${visible(name)}`, content };
}
