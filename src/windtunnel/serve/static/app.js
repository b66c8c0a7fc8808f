// The views, by the part of the address after #.
import { h } from "./html.js";
import { openLook } from "./look.js";
import { openComparisons, openExperiments } from "./results.js";
import { openRuns } from "./runs.js";

const VIEWS = {
  runs: ["Runs", openRuns],
  look: ["Look", openLook],
  comparisons: ["Comparisons", openComparisons],
  experiments: ["Experiments", openExperiments],
};
const main = document.getElementById("main");
let current = null;

function show() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  if (path === "main") return main.focus();
  const name = Object.hasOwn(VIEWS, path) ? path : "runs";
  const params = new URLSearchParams(query);
  if (current?.name === name) return current.update?.(params);
  if (current) {
    current.closed = true;
    clearTimeout(current.timer);
    current.close?.();
  }
  const [title, open] = VIEWS[name];
  document.title = `${title} – windtunnel`;
  for (const link of document.querySelectorAll("nav a"))
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  const isFirst = current === null;
  current = { name, closed: false };
  main.replaceChildren(h("h1", {}, title), h("div", { id: "problem", role: "alert" }));
  open(main, params, current);
  if (!isFirst) main.focus();
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", show);
show();
