// Elements are built from text, never from markup: whatever a function, a log or a name contains is shown as it is.

export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(tag, properties, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

// Functions write what they like: control characters, and those that turn the direction of text, are made visible.
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function visible(text) {
  const plain = String(text ?? "").replaceAll(/\r\n/g, "\n").replaceAll(/\u001b\[[0-9;:?]*[ -/]*[@-~]/g, "");
  return plain.replaceAll(INVISIBLE, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function field(label, input, hint) {
  input.id ||= `f${Math.random().toString(36).slice(2)}`;
  return h("div", {}, h("label", { for: input.id }, label), input, hint ? h("small", { class: "muted" }, hint) : null);
}

export function select(options, value, properties) {
  const element = h("select", properties, options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  element.value = value;
  return element;
}

// scope="col" cells and rows of cells; a cell is text, an element, or {num: text}.
export function table(caption, columns, rows) {
  const cell = (value) => {
    if (value instanceof Node) return h("td", {}, value);
    if (value !== null && typeof value === "object") return h("td", { class: "num" }, value.num);
    return h("td", {}, String(value ?? ""));
  };
  const head = columns.map((name) => (name.startsWith("#") ? h("th", { scope: "col", class: "num" }, name.slice(1)) : h("th", { scope: "col" }, name)));
  const body = rows.map((row) => h("tr", {}, row.map(cell)));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "visually-hidden" }, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

export function empty(text, command) {
  return h("div", { class: "empty" }, h("p", {}, text), command ? h("pre", { tabindex: 0 }, command) : null);
}

export function failed(error) {
  return h("div", { class: "error", role: "alert" }, visible(error.message ?? error));
}

// A button whose work may fail; the failure is shown in the element `problem`.
export function action(text, label, problem, work) {
  const run = async () => {
    try {
      await work();
    } catch (error) {
      problem.replaceChildren(failed(error));
    }
  };
  return h("button", { type: "button", "aria-label": label, onclick: run }, text);
}

export function announce(text) {
  document.getElementById("status").textContent = text;
}

export function commands(lines) {
  const copy = (text) => async () => {
    try {
      await navigator.clipboard.writeText(text);
      announce("Copied");
    } catch {
      announce("Select the text and copy it: this browser allows no other way here");
    }
  };
  return h("section", { class: "commands", "aria-labelledby": "commands" },
    h("h2", { id: "commands" }, "From a terminal"),
    lines.map(([label, text]) => h("div", {}, h("pre", { tabindex: 0, "aria-label": label }, text), h("button", { type: "button", onclick: copy(text), "aria-label": `Copy: ${label}` }, "Copy"))));
}
