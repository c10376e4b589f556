import { change, get, messageOf, query, segment, send } from "../api.js";
import { action, announce, commands, empty, h, table, visible } from "../dom.js";
import { number, quoted, time } from "../format.js";
import { curl, pager } from "./apps.js";

const MOST = 64 * 1024;

// The calls of an app that failed and are not tried again, with their payloads: run them again, or remove them.
export async function dead({ me, parameters, search, signal, again }) {
  const [app] = parameters;
  const cursor = search.get("cursor") ?? "";
  const at = `/api/v1/apps/${segment(app)}/dead-letters`;
  const found = await get(`${at}${query({ per_page: 50, cursor })}`, { signal });
  const shown = h("div", {});
  const button = (text, label, work) => action(text, label, shown, work);
  const payload = (one) => async () => {
    const answer = await send(`${at}/${segment(one.id)}/payload`, { signal });
    if (!answer.ok) throw new Error(await messageOf(answer));
    const text = await answer.text();
    shown.replaceChildren(
      h("h2", {}, `Payload of ${visible(one.id)}`), h("pre", { tabindex: 0, "aria-label": "Payload" }, visible(text.slice(0, MOST))),
      text.length > MOST ? h("p", { class: "muted" }, `The first ${MOST} of ${text.length} characters.`) : "");
  };
  const redrive = (one) => async () => {
    const { call_id: id } = await change("POST", `${at}/${segment(one.id)}/redrive`);
    announce(`Call ${id} is queued`);
    location.hash = `#/call/${segment(app)}/${segment(id)}`;
  };
  const purge = (one) => async () => {
    await change("DELETE", `${at}/${segment(one.id)}`);
    announce(`Dead letter ${one.id} removed`);
    again();
  };
  const all = async () => {
    const done = await change("POST", `${at}/redrive`);
    announce(`${done.redriven} calls are queued`);
    again();
  };
  const rows = found.calls.map((one) => [
    h("a", { href: `#/call/${segment(app)}/${segment(one.id)}` }, visible(one.id)), visible(one.path), time(one.completed_at),
    { num: number(one.attempt ?? 1) }, { num: number(one.payload_bytes) }, visible(one.error ?? ""),
    h("div", { class: "row" },
      button("Payload", `Show the payload of ${one.id}`, payload(one)),
      me.can.edit_calls && !one.unreadable ? button("Run again", `Run ${one.id} again`, redrive(one)) : null,
      me.can.edit_calls ? button("Remove", `Remove ${one.id}`, purge(one)) : null),
  ]);
  return {
    title: `Dead letters of ${visible(app)}`,
    content: [
      h("p", {}, "Calls that failed and are not tried again, the newest failures first."),
      rows.length ? table("Dead letters", ["Call", "Function", "Failed", "#Attempts", "#Bytes", "Error", "Actions"], rows) : empty("There are no dead letters.", `hearth routes update ${quoted(app)} /hello --dead-letters yes`),
      rows.length && me.can.edit_calls ? h("p", {}, button("Run all again", "Run all again", all)) : null,
      pager(`#/dead/${segment(app)}`, found.next_cursor, cursor), shown,
      commands([["hearth", `hearth dead-letters list ${quoted(app)}`], ["hearth redrive", `hearth dead-letters redrive ${quoted(app)}`], ["curl", `${curl(me)} ${quoted(location.origin + at.slice(4))}`]]),
    ],
  };
}
