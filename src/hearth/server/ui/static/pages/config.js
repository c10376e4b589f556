import { announce, empty, failed, field, h, table, visible } from "../dom.js";

// The configuration as a table, with a form that sets or removes one key.
export function configForm(config, editable, save) {
  const entries = Object.entries(config ?? {}).sort(([one], [other]) => (one < other ? -1 : 1));
  const shown = entries.length
    ? table("Configuration", ["Key", "Value"], entries.map(([key, value]) => [h("code", {}, visible(key)), h("code", {}, visible(value))]))
    : empty("There is no configuration.", null);
  if (!editable) return shown;
  const key = h("input", { required: true, spellcheck: "false" });
  const value = h("input", { spellcheck: "false" });
  const problem = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    try {
      await save({ [key.value]: value.value });
      announce("Saved");
    } catch (error) {
      problem.replaceChildren(failed(error));
    }
  };
  return h("div", {}, shown, h("form", { class: "row", onsubmit: submit, "aria-label": "Change the configuration" },
    field("Key", key), field("Value (empty removes the key)", value), h("button", {}, "Save")), problem);
}

// A form of numbers and choices. `fields` are [name, label, element]; only what was changed is saved.
export function limitsForm(fields, save) {
  const before = new Map(fields.map(([name, , element]) => [name, element.value]));
  const problem = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    const changed = fields.filter(([name, , element]) => element.value !== before.get(name));
    if (!changed.length) return announce("Nothing was changed");
    try {
      await save(Object.fromEntries(changed.map(([name, , element]) => [name, element.type === "number" ? Number(element.value) : element.value])));
      announce("Saved");
    } catch (error) {
      problem.replaceChildren(failed(error));
    }
  };
  return h("div", {}, h("form", { class: "row", onsubmit: submit, "aria-label": "Change limits" }, fields.map(([, label, element]) => field(label, element)), h("button", {}, "Save")), problem);
}
