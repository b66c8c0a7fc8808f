// What was compared and what experiments found; one experiment at a time is started and stopped here.
import { artefact, complain, file, get, h, isLocal, option, own, poll, post, say } from "./html.js";

const WORDS = { better: "better", worse: "worse", "no difference that matters": "same", undecided: "undecided",
  holds: "holds", "does not hold": "not" };
const VERDICT = /^(holds|does not hold|undecided): /;

const files = (one) => h("p", { class: "files" }, one.files.includes("report.html") && [file(one.id, "report.html", "the whole report"), " · "],
  one.files.filter((name) => name !== "report.html").map((name) => [file(one.id, name), " "]));

// A picture is asked for when it is opened, and only where the browser may ask by itself.
const figures = (one) => {
  const drawn = isLocal ? one.files.filter((name) => name.endsWith(".svg")) : [];
  return drawn.length > 0 && h("details", { class: "figures" }, h("summary", {}, drawn.length > 1 ? `${drawn.length} figures` : "figure"),
    drawn.map((name) => h("img", { src: artefact(one.id, name), alt: `${name.replace(/\.svg$/, "")}: the report has its numbers`, loading: "lazy" })));
};

const about = (one, ...inside) => h("article", { class: "result" },
  h("h2", {}, own(one.title ?? one.name), one.quick && h("small", {}, " quick")), h("p", { class: "quiet" }, own(one.name)),
  one.damaged ? h("p", { class: "problem" }, one.damaged) : inside, figures(one), files(one),
  one.signature && h("details", {}, h("summary", {}, "signature"), h("pre", {}, one.signature)));

const comparison = (one) => about(one, one.verdicts
  && (one.verdicts.length ? one.verdicts.map((v) => h("p", { class: `verdict ${WORDS[v.word] ?? ""}` }, own(v.sentence)))
    : h("p", {}, "Nothing can be judged yet.")));

const outcome = (one) => about(one, h("p", {}, one.what),
  one.claims?.length > 0 && h("div", { class: "scroll claims", tabindex: "0", role: "region", "aria-label": "claims" }, h("table", {},
    h("thead", {}, h("tr", {}, ["row", "claim", "source", "measured", "verdict"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, one.claims.map((c) => h("tr", { class: WORDS[c.verdict] ?? "" },
      [c.id, c.statement, c.published, c.measured].map((text) => h("td", {}, own(text))), h("td", {}, h("strong", {}, c.verdict))))))));

function results(kind, draw, empty, list, view, tags) {
  return async () => {
    const found = await get("page/results", tags);
    if (found === null || view.closed) return;
    const chosen = found.filter((one) => one.kind === kind);
    list.replaceChildren(...(chosen.length ? chosen.map(draw) : [h("p", {}, empty)]));
  };
}

export function openComparisons(main, _, view) {
  const list = h("div");
  main.append(list);
  poll(5, view, results("comparison", comparison,
    "No comparison has ended below this folder. Make one: windtunnel compare names --vary optimizer.lr=0.001,0.003", list, view, new Map()));
}

export function openExperiments(main, _, view) {
  const [list, tags, lines] = [h("div"), new Map(), h("ol", { class: "lines", tabindex: "0", "aria-label": "what it printed" })];
  const name = h("select", { id: "name", required: true });
  const question = h("p", { class: "quiet" });
  const quick = h("input", { type: "checkbox", id: "quick", checked: true });
  const seed = h("input", { type: "number", id: "seed", min: "0", value: "0", required: true });
  const start = h("button", {}, "start");
  const stop = h("button", { type: "button", disabled: true, onclick: () => act("page/job/stop", {}, "asked to stop") }, "stop");
  const state = h("p", { role: "status" });
  const log = h("section", { class: "panel", hidden: true, "aria-label": "the last command" }, state, lines, stop);
  let questions = {};
  let running = false;

  async function act(path, data, said) {
    try {
      tell(await post(path, data));
      say(said);
    } catch (error) {
      complain(error);
    }
  }

  function tell(job) {
    running = job.running;
    start.disabled = running;
    stop.disabled = !running;
    log.hidden = job.kind === null;
    const how = running ? (job.stopped ? "is being stopped" : "is running")
      : job.stopped ? "was stopped" : job.code === 0 ? "has finished"
        : job.kind === "check" && job.code === 1 ? "has finished: a problem was found" : `ended with exit code ${job.code}`;
    const text = `${job.kind} ${job.name} ${how}`;
    if (state.textContent !== text) state.replaceChildren(own(text));
    const end = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 8;
    lines.replaceChildren(...job.lines.map((line) => {
      const verdict = VERDICT.exec(line)?.[1];
      return h("li", { class: verdict && `verdict ${WORDS[verdict]}` }, own(line, "span"));
    }));
    if (end) lines.scrollTop = lines.scrollHeight;
  }

  name.addEventListener("change", () => { question.textContent = questions[name.value] ?? ""; });
  main.append(
    h("form", { class: "controls", onsubmit: (event) => {
      event.preventDefault();
      act("page/experiments/start", { name: name.value, quick: quick.checked, seed: Number(seed.value) }, `${name.value} has begun`);
    } }, h("label", { for: "name" }, "experiment ", name), h("label", { for: "quick", class: "tick" }, quick, " quick"),
    h("label", { for: "seed" }, "seed ", seed), start),
    question, log, list);

  const jobs = new Map();
  const ask = results("outcome", outcome, "No experiment has ended below this folder.", list, view, tags);
  poll(() => (running ? 1 : 3), view, async () => {
    if (!name.options.length) {
      const found = await get("page/experiments");
      questions = Object.fromEntries(found.experiments.map((one) => [one.name, one.question]));
      name.replaceChildren(...found.experiments.map((one) => option(one.name, one.name)));
      question.textContent = questions[name.value] ?? "";
    }
    const job = await get("page/job", jobs);
    if (job !== null) tell(job);
    await ask();
  });
}
