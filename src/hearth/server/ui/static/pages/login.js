import { change } from "../api.js";
import { failed, field, h } from "../dom.js";

export function login() {
  const token = h("input", { type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const problem = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    try {
      await change("POST", "/login", { token: token.value });
      location.reload();
    } catch (error) {
      problem.replaceChildren(failed(error.status === 401 ? "This token is not valid on this node" : error));
      token.focus();
    }
  };
  return h("div", { class: "login" },
    h("h1", {}, "Log in"),
    h("form", { onsubmit: submit }, field("Token", token), h("p", {}, h("button", { class: "main" }, "Log in"))),
    problem,
    h("p", { class: "muted" }, "An administrator creates tokens. On the machine of the node, the first one is in its data folder:"),
    h("pre", { tabindex: 0 }, "hearth tokens create me --role viewer\ncat data/admin-token"));
}
