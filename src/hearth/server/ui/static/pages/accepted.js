import { get, query, segment } from "../api.js";
import { commands, empty, h, table, visible } from "../dom.js";
import { age, number } from "../format.js";
import { curl, pager } from "./apps.js";

export async function accepted({ me, search, signal }) {
  const cursor = search.get("cursor") ?? "";
  const found = await get(`/data/async${query({ per_page: 50, cursor })}`, { signal });
  const rows = found.functions.map((one) => [
    h("a", { href: `#/function/${segment(one.app)}/${segment(one.path)}` }, visible(`${one.app} ${one.path}`)),
    { num: `${number(one.queued)}${one.is_cut ? " or more" : ""}` },
    { num: `${age((Date.now() - new Date(one.oldest_at)) / 1000)}${one.is_cut ? " or more" : ""}` },
    h("a", { href: `#/calls${query({ app: one.app, status: "queued" })}` }, "Calls"),
  ]);
  const dead = found.dead_letters.map((one) => [
    h("a", { href: `#/dead/${segment(one.app)}` }, visible(one.app)), { num: number(one.count) }, { num: age((Date.now() - new Date(one.oldest_at)) / 1000) },
  ]);
  const tiles = found.node ? h("dl", { class: "tiles" },
    h("div", { class: "tile" }, h("dt", {}, "In the queue"), h("dd", {}, number(found.node.queue_length))),
    h("div", { class: "tile" }, h("dt", {}, "Oldest message"), h("dd", {}, found.node.queue_length ? age(found.node.queue_oldest_age_s) : "–"))) : null;
  return {
    title: "Async calls",
    content: [
      tiles, h("h2", {}, "Waiting, by function"),
      rows.length ? table("Backlog", ["Function", "#Waiting", "#Oldest", "Calls"], rows) : empty(`No accepted call waits in ${cursor ? "these" : "the first"} ${number(found.apps)} apps.`, "hearth routes update myapp /hello --type async\nhearth invoke myapp /hello"),
      pager("#/async", found.next_cursor, cursor),
      me.can.dead_letters ? h("h2", {}, "Failed, not tried again, by app") : null,
      me.can.dead_letters ? (dead.length ? table("Dead letters", ["App", "#Calls", "#Oldest"], dead) : empty("There are no dead letters.", "hearth dead-letters list myapp")) : null,
      commands([["hearth", "hearth calls list myapp --status queued"], ["curl", `${curl(me)} ${location.origin}/ui/data/async`]]),
    ],
  };
}
