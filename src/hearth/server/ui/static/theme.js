"use strict";
// Runs before the first paint, so that the page does not flash in the other theme.
try {
  const theme = localStorage.getItem("hearth-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // Without storage the system's theme is used.
}

// A script that does not arrive, for instance as the network changes, would leave the page empty without a word.
document.addEventListener("error", (event) => {
  if (event.target.tagName !== "SCRIPT") return;
  const told = document.createElement("p");
  told.className = "error";
  told.setAttribute("role", "alert");
  told.textContent = "A part of this page did not load. Reload the page.";
  document.getElementById("main").replaceChildren(told);
}, true);
