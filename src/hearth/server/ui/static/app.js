import { change, get } from "./api.js";
import { announce, failed, h } from "./dom.js";
import { access } from "./pages/access.js";
import { accepted } from "./pages/accepted.js";
import { app, apps } from "./pages/apps.js";
import { call, calls } from "./pages/calls.js";
import { dead } from "./pages/dead.js";
import { func } from "./pages/function.js";
import { login } from "./pages/login.js";
import { overview } from "./pages/overview.js";

const main = document.getElementById("main");
const PAGES = { "": overview, apps, app, function: func, calls, call, async: accepted, dead, access };
const NAVIGATION = [
  ["", "Overview", () => true],
  ["apps", "Apps", (can) => can.apps],
  ["calls", "Calls", (can) => can.calls],
  ["async", "Async", (can) => can.calls],
  ["access", "Access", (can) => can.tokens || can.audit],
];
const SECTION = { app: "apps", function: "apps", call: "calls", dead: "async" };

let me = null;
let leave = new AbortController();
let shown = "";

function parts() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const decode = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  return [path.split("/").map(decode), new URLSearchParams(search ?? "")];
}

function drawFrame(name) {
  const items = NAVIGATION.filter(([, , allowed]) => me && allowed(me.can));
  const current = SECTION[name] ?? name;
  document.getElementById("nav").replaceChildren(
    h("ul", {}, items.map(([page, text]) => h("li", {}, h("a", { href: `#/${page}`, "aria-current": page === current ? "page" : undefined }, text)))));
  const theme = () => {
    const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("hearth-theme", document.documentElement.dataset.theme);
    } catch {
      // It then holds until the page is closed.
    }
    dispatchEvent(new Event("hearth-theme"));
  };
  const out = async () => {
    await change("POST", "/logout");
    location.reload();
  };
  document.getElementById("account").replaceChildren(
    ...[
      me ? h("span", {}, me.is_logged_in ? `${me.name || me.role} (${me.role})` : "this machine") : null,
      h("button", { type: "button", onclick: theme }, "Theme"),
      me?.is_logged_in ? h("button", { type: "button", onclick: out }, "Log out") : null,
    ].filter(Boolean));
}

async function show() {
  if (location.hash === "#main") return;
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  const [[name, ...rest], search] = parts();
  const moves = shown !== location.hash;
  shown = location.hash;
  try {
    me ??= await get("/data/me");
  } catch (error) {
    // A link on a page of another site brings no cookie: this page then belongs to no session, and is loaded again.
    if (error.status === 403 && !location.search) return location.replace(`/ui/?again${location.hash}`);
    drawFrame(name);
    document.title = "Log in – Hearth";
    main.replaceChildren(error.status === 401 ? login() : failed(error));
    return;
  }
  drawFrame(name);
  const page = Object.hasOwn(PAGES, name) ? PAGES[name] : null;
  try {
    if (!page) throw new Error("There is no such page");
    const { title, content } = await page({ me, parameters: rest, search, signal, again: show });
    if (signal.aborted) return;
    document.title = `${title} – Hearth`;
    main.replaceChildren(h("h1", {}, title), ...content.filter(Boolean));
    main.dispatchEvent(new Event("hearth-shown"));
    if (moves) announce(title);
    else if (document.activeElement === document.body) main.focus({ preventScroll: true });
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401) {
      me = null;
      drawFrame(name);
      main.replaceChildren(login());
      return;
    }
    document.title = "Error – Hearth";
    main.replaceChildren(h("h1", {}, "Not shown"), failed(error), h("p", {}, h("a", { href: "#/" }, "Back to the overview")));
  }
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => {
  scrollTo(0, 0);
  show();
});
show();
