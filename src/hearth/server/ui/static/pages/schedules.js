import { change, segment } from "../api.js";
import { action, announce, empty, h, table, visible } from "../dom.js";
import { quoted, time } from "../format.js";

const when = (one) => (one.cron ? `${one.cron} ${one.timezone ?? "UTC"}` : one.every ? `every ${one.every}` : `at ${one.at}`);
const SET_BY_SERVER = ["id", "created_at", "updated_at", "next", "last_due", "last_call"];

// The schedules of an app with their next times; with buttons for those who may change them.
// Names: those of fns by their ids.
export function schedules(found, app, names, can, again) {
  if (!found.length) return empty("There are no schedules.", `hearth schedules create ${quoted(app)} nightly --route /hello --cron "0 2 * * *"`);
  const problem = h("div", {});
  const called = (one) => one.route ?? names[one.fn_id] ?? one.fn_id;
  const path = (one) => `/api/v1/apps/${segment(app)}/schedules/${segment(one.name)}`;
  const button = (text, label, work) => action(text, label, problem, work);
  const run = (one) => async () => {
    const { call_id: id } = await change("POST", `${path(one)}/run`);
    announce(`Call ${id} is queued`);
    location.hash = `#/call/${segment(app)}/${segment(id)}`;
  };
  const toggle = (one) => async () => {
    const schedule = { ...one, enabled: !one.enabled };
    for (const name of SET_BY_SERVER) delete schedule[name];
    await change("PUT", path(one), { schedule });
    again();
  };
  const rows = found.map((one) => [
    visible(one.name),
    h("a", { href: `#/function/${segment(app)}/${segment(called(one))}` }, visible(called(one))),
    h("code", {}, visible(when(one))),
    one.next.length ? h("ol", { class: "plain" }, one.next.map((moment) => h("li", {}, time(moment)))) : one.enabled ? "never" : "disabled",
    one.last_call ? h("a", { href: `#/call/${segment(app)}/${segment(one.last_call)}` }, time(one.last_due)) : "–",
    can.edit_schedules
      ? h("div", { class: "row" }, button("Run now", `Run ${one.name} now`, run(one)), button(one.enabled ? "Pause" : "Resume", `${one.enabled ? "Pause" : "Resume"} ${one.name}`, toggle(one)))
      : "",
  ]);
  return h("div", {}, table("Schedules", ["Name", "Function", "When", "Next times", "Last", "Actions"], rows), problem);
}
