import { h } from "./dom.js";

const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const NUMBER = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

export const number = (value) => NUMBER.format(value ?? 0);

export function milliseconds(value) {
  if (!value) return "–";
  if (value < 1000) return `${NUMBER.format(value)} ms`;
  return `${NUMBER.format(value / 1000)} s`;
}

export function age(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const mebibytes = (value) => (value >= 1024 ? `${NUMBER.format(value / 1024)} GiB` : `${NUMBER.format(value)} MiB`);

const isSet = (text) => Boolean(text) && !text.startsWith("0001-");

// The local time; its title is the time in UTC, as the API tells it.
export function time(text) {
  if (!isSet(text)) return h("span", { class: "muted" }, "–");
  const date = new Date(text);
  return h("time", { datetime: text, title: `${date.toISOString().replace("T", " ").replace("Z", "")} UTC` }, LOCAL.format(date));
}

export function between(from, to) {
  if (!isSet(from) || !isSet(to)) return undefined;
  return Math.max(0, new Date(to) - new Date(from));
}

export const duration = (ms) => (ms === undefined ? "–" : ms === 0 ? "0 ms" : milliseconds(ms));

const LOOK = { success: "good", error: "bad", timeout: "bad", queued: "warn", running: "warn" };
const SIGN = { success: "✓", error: "✗", timeout: "⧗", queued: "…", running: "▶" };

export const status = (name) => h("span", { class: LOOK[name] ?? "muted" }, `${SIGN[name] ?? "?"} ${name}`);

export const quoted = (text) => (/^[A-Za-z0-9_./:@=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
