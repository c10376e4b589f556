import { change, get, query, segment } from "../api.js";
import { announce, commands, empty, failed, field, h, select, table, visible } from "../dom.js";
import { time } from "../format.js";
import { curl, pager } from "./apps.js";

const ROLES = ["viewer", "invoker", "deployer", "admin", "runner"].map((role) => [role, role]);

export async function access({ me, search, signal, again }) {
  const cursor = search.get("cursor") ?? "";
  const after = search.get("audit") ?? "";
  const [tokens, audit] = await Promise.all([
    me.can.tokens ? get(`/api/v1/tokens${query({ per_page: 50, cursor })}`, { signal }) : { tokens: [], next_cursor: "" },
    me.can.audit ? get(`/api/v1/audit${query({ per_page: 50, cursor: after })}`, { signal }) : { events: [], next_cursor: "" },
  ]);
  const content = [h("h2", {}, "Tokens")];
  if (me.can.edit_tokens) content.push(create(again));
  content.push(tokens.tokens.length ? tokenTable(tokens.tokens, me, again) : empty("There are no tokens besides the one of the node.", "hearth tokens create ci --role deployer"));
  content.push(pager("#/access", tokens.next_cursor, cursor), h("h2", {}, "Audit log"));
  content.push(audit.events.length ? auditTable(audit.events) : empty("Nothing was changed or refused.", "hearth apps create myapp"));
  if (audit.next_cursor || after) {
    content.push(h("p", {}, after ? h("a", { href: "#/access" }, "Newest events") : null, " ", audit.next_cursor ? h("a", { href: `#/access?audit=${segment(audit.next_cursor)}` }, "Older events") : null));
  }
  content.push(commands([["hearth", "hearth tokens list"], ["curl tokens", `${curl(me)} ${location.origin}/v1/tokens`], ["curl audit", `${curl(me)} ${location.origin}/v1/audit`]]));
  return { title: "Access", content };
}

function tokenTable(tokens, me, again) {
  const revoke = (token) => async (event) => {
    const button = event.currentTarget;
    if (!button.dataset.sure) {
      button.dataset.sure = "yes";
      button.textContent = "Really revoke";
      return;
    }
    try {
      await change("DELETE", `/api/v1/tokens/${segment(token.id)}`);
      announce("Revoked");
      again();
    } catch (error) {
      button.after(failed(error));
    }
  };
  const rows = tokens.map((one) => [
    visible(one.name), one.role, visible(one.apps.join(", ")) || "all", time(one.created_at), time(one.last_used_at), time(one.expires_at),
    me.can.edit_tokens ? h("button", { type: "button", onclick: revoke(one), "aria-label": `Revoke ${visible(one.name)}` }, "Revoke") : "",
  ]);
  return table("Tokens", ["Name", "Role", "Apps", "Created", "Last used", "Expires", "Action"], rows);
}

function create(again) {
  const name = h("input", { required: true });
  const role = select(ROLES, "viewer");
  const apps = h("input", { spellcheck: "false" });
  const result = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    try {
      const wanted = { name: name.value, role: role.value, apps: apps.value.split(/[\s,]+/).filter(Boolean) };
      const { token } = await change("POST", "/api/v1/tokens", { token: wanted });
      result.replaceChildren(h("p", {}, "Copy the token now. It is not shown again."), h("pre", { tabindex: 0, "aria-label": "New token" }, token.value), h("p", {}, h("button", { type: "button", onclick: again }, "Done")));
    } catch (error) {
      result.replaceChildren(failed(error));
    }
  };
  return h("div", {}, h("form", { class: "row", onsubmit: submit, "aria-label": "Create a token" }, field("Name", name), field("Role", role), field("Apps (empty: all)", apps), h("button", {}, "Create")), result);
}

function auditTable(events) {
  const rows = events.map((one) => [time(one.created_at), visible(one.principal), one.action, visible([one.app, one.resource].filter(Boolean).join(" ")), { num: one.status }, one.address]);
  return table("Audit log", ["Time", "Principal", "Action", "Resource", "#Status", "Address"], rows);
}
