// The table of runs, live, and below it the curves, settings and findings of those that are chosen.
import { Chart } from "./chart.js";
import { complain, download, estimate, file, get, h, number, option, own, poll, post, Refused, say } from "./html.js";

const MOST = 64;
const COLUMNS = [
  ["run", (row) => row.name],
  ["state", (row) => row.state],
  ["step", (row) => row.step],
  ["dev loss", (row) => row.loss],
  ["tokens/s", (row) => row.speed],
  ["parameters", (row) => row.parameters],
  ["corpus", (row) => row.corpus],
];

export function openRuns(main, params, view) {
  const runs = new Runs(main, view);
  view.update = (now) => runs.choose(now);
  view.close = () => runs.chart.close();
  runs.choose(params);
  poll(() => (runs.unread ? 0.2 : 2), view, () => runs.ask());
}

const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const known = (values) => values.filter((value) => value !== null && value !== undefined);

// What a row shows: of a group of seeds what its runs say together.
function shown(runs, name, scores) {
  const states = new Map();
  for (const run of runs) states.set(run.state, (states.get(run.state) ?? 0) + 1);
  const steps = known(runs.map((run) => run.step));
  const [low, high] = [Math.min(...steps), Math.max(...steps)];
  const losses = known(runs.map((run) => run.dev?.loss));
  const whole = scores?.loss;
  const loss = whole ? estimate(whole) : losses.length ? number(mean(losses)) : "–";
  const speed = mean(known(runs.map((run) => run.tokens_per_second)));
  const first = runs.find((run) => run.corpus !== undefined) ?? {};
  return {
    name, state: [...states].map(([state, n]) => (runs.length > 1 ? `${n} ${state}` : state)).join(", "),
    step: steps.length ? high : null, loss: whole?.estimate ?? mean(losses), speed,
    parameters: first.parameters ?? null, corpus: first.corpus ?? "",
    isTraining: states.has("training"), message: runs.map((run) => run.message).find(Boolean) ?? "",
    cells: [null, null, steps.length ? `${low === high ? "" : `${number(low)}–`}${number(high)}/${number(first.steps)}` : "–",
      loss, speed === null ? "–" : number(Math.round(speed)), number(first.parameters), first.corpus ?? "–"],
  };
}

class Runs {
  constructor(main, view) {
    Object.assign(this, { view, groups: [], unread: 0, chosen: new Set(), opened: new Set(), rows: new Map() });
    Object.assign(this, { tags: new Map(), sort: null, falling: false, stamp: "" });
    this.filter = h("input", { type: "search", id: "filter", oninput: () => this.list() });
    this.state = h("select", { id: "state", onchange: () => this.list() },
      ["any", "training", "finished", "interrupted", "diverged", "damaged"].map((name) => option(name, name)));
    this.count = h("span", { class: "quiet" });
    this.heads = COLUMNS.map(([name]) => h("th", { scope: "col" },
      h("button", { type: "button", class: "plain", onclick: () => this.order(name) }, name)));
    this.body = h("tbody");
    this.below = h("div");
    this.none = h("button", { type: "button", disabled: true, onclick: () => this.go([]) }, "choose none");
    main.append(
      h("div", { class: "controls" }, h("label", { for: "filter" }, "filter ", this.filter),
        h("label", { for: "state" }, "state ", this.state), this.count, this.none),
      h("div", { class: "scroll runs", tabindex: "0", role: "region", "aria-label": "table of runs" },
        h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "hidden" }, "chosen")), this.heads)),
          this.body)),
      this.below);
    this.makeChart();
  }

  async ask() {
    const found = await get("page/runs", this.tags);
    if (found === null) return;
    [this.groups, this.unread] = [found.groups, found.unread];
    this.list();
    this.look();
  }

  // The rows of groups, and of the runs of those that are opened, in the order asked for.
  list() {
    const [text, state] = [this.filter.value.trim().toLowerCase(), this.state.value];
    const fits = (run, group) => (state === "any" || run.state === state)
      && (!text || `${group.name} ${run.name} ${run.corpus ?? ""} ${run.family ?? ""}`.toLowerCase().includes(text));
    const made = this.groups.map((group) => ({ group, runs: group.runs.filter((run) => fits(run, group)) }))
      .filter(({ runs }) => runs.length)
      .map(({ group, runs }) => ({ group, runs, row: shown(runs, group.name, runs.length === group.runs.length && group.scores) }));
    if (this.sort) {
      const value = COLUMNS.find(([name]) => name === this.sort)[1];
      const sign = this.falling ? -1 : 1;
      made.sort((a, b) => {
        const [x, y] = [value(a.row), value(b.row)];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
      });
    }
    const rows = made.flatMap(({ group, runs, row }) => {
      const alone = runs.length === 1;
      const first = this.row(group.name, row, runs, alone ? null : group.name, alone ? runs[0].name : group.name);
      if (alone || !this.opened.has(group.name)) return [first];
      return [first, ...runs.map((run) => this.row(run.id, shown([run], run.name), [run], null, run.name, true))];
    });
    if (rows.some((row, i) => this.body.children[i] !== row) || rows.length !== this.body.children.length)
      this.body.replaceChildren(...rows);
    const n = made.reduce((sum, { runs }) => sum + runs.length, 0);
    this.count.textContent = `${n} run${n === 1 ? "" : "s"}${this.unread ? `, ${this.unread} being read` : ""}`
      + (this.groups.length || this.unread ? "" : ": there is none below this folder yet; train one: windtunnel train names");
    this.none.disabled = !this.chosen.size;
  }

  // A row is made once and then changed, so that the keyboard's focus stays where it is.
  row(key, now, runs, group, name, isSeed = false) {
    let row = this.rows.get(key);
    if (row?.alone !== (group === null)) row = undefined;
    if (!row) {
      const box = h("input", { type: "checkbox", "aria-label": `choose ${name}` });
      const cells = COLUMNS.map((_, i) => h(i ? "td" : "th", i ? {} : { scope: "row" }));
      row = { element: h("tr", { class: isSeed && "seed" }, h("td", {}, box), cells), box, cells, alone: group === null };
      box.addEventListener("change", () => this.toggle(row.runs, box.checked));
      if (group !== null) {
        row.opener = h("button", { type: "button", class: "plain", "aria-expanded": "false", onclick: () => this.open(group) });
        cells[0].append(row.opener, own(name));
      } else cells[0].append(own(name));
      this.rows.set(key, row);
    }
    row.runs = runs;
    if (row.opener) {
      row.opener.setAttribute("aria-expanded", String(this.opened.has(group)));
      row.opener.setAttribute("aria-label", `${runs.length} seeds of ${name}`);
      row.opener.textContent = `${this.opened.has(group) ? "▾" : "▸"} ${runs.length} seeds`;
    }
    const chosen = runs.filter((run) => this.chosen.has(run.id)).length;
    row.box.checked = chosen === runs.length;
    row.box.indeterminate = chosen > 0 && chosen < runs.length;
    row.element.classList.toggle("chosen", chosen > 0);
    row.element.classList.toggle("moves", now.isTraining);
    put(row.cells[1], now.state, now.message);
    for (let i = 2; i < COLUMNS.length; i++) put(row.cells[i], now.cells[i]);
    return row.element;
  }

  open(group) {
    if (!this.opened.delete(group)) this.opened.add(group);
    this.list();
  }

  order(name) {
    [this.sort, this.falling] = [name, this.sort === name && !this.falling];
    COLUMNS.forEach(([column], i) => {
      if (column === name) this.heads[i].setAttribute("aria-sort", this.falling ? "descending" : "ascending");
      else this.heads[i].removeAttribute("aria-sort");
    });
    this.list();
  }

  toggle(runs, isOn) {
    const next = new Set(this.chosen);
    for (const run of runs) isOn ? next.add(run.id) : next.delete(run.id);
    if (next.size > MOST) {
      this.list();
      return complain(new Refused(`at most ${MOST} runs can be drawn at a time`));
    }
    this.go([...next]);
  }

  go(ids) {
    this.chosen = new Set(ids);
    location.hash = ids.length ? `#/runs?s=${ids.join(",")}` : "#/runs";
  }

  choose(params) {
    this.chosen = new Set((params.get("s") ?? "").split(",").filter(Boolean));
    this.stamp = "";
    this.chart.range = null;
    this.list();
    this.look();
  }

  // Ask for what is shown of the chosen runs, if any of them has changed.
  look() {
    const runs = this.groups.flatMap((group) => group.runs).filter((run) => this.chosen.has(run.id));
    this.details.hidden = !runs.length;
    const stamp = JSON.stringify(runs.map((run) => [run.id, run.step, run.state, run.dev]));
    if (stamp === this.stamp || !runs.length) return;
    this.stamp = stamp;
    this.sound = runs.filter((run) => run.state !== "damaged");
    for (const run of runs) if (run.state === "damaged") complain(new Refused(`${run.name}: ${run.message}`));
    if (!this.sound.length) return;
    this.draw().catch(complain);
    this.tell().catch(complain);
  }

  get ids() {
    return this.sound.map((run) => run.id).join(",");
  }

  makeChart() {
    const again = () => this.draw().catch(complain);
    const choice = (id, values, chosen) => h("select", { id, onchange: () => { this.chart.range = null; again(); } },
      values.map((value) => option(value, value, value === chosen)));
    const tick = (id, text, checked = false) => {
      const box = h("input", { type: "checkbox", id, checked, onchange: again });
      return [h("label", { for: id, class: "tick" }, box, ` ${text}`), box];
    };
    this.quantity = choice("quantity", ["loss"], "loss");
    this.axis = choice("axis", ["step", "tokens", "seconds"], "step");
    const [logX, boxX] = tick("logx", "log x");
    const [logY, boxY] = tick("logy", "log y");
    const [band, boxBand] = tick("band", "mean over seeds", true);
    Object.assign(this, { boxX, boxY, boxBand });
    this.smooth = h("input", { type: "range", id: "smooth", min: "0", max: "3", step: "0.1", value: "0", oninput: () => {
      this.smoothed.textContent = this.over > 1 ? `over ${this.over} steps` : "none";
      again();
    } });
    this.smoothed = h("output", { for: "smooth" }, "none");
    const box = h("div", { class: "chart", tabindex: "0", role: "group", "aria-label":
      "curves; left and right read values, plus and minus zoom, page up and page down move, escape shows all" });
    const legend = h("tbody");
    const button = (text, act, label) => h("button", { type: "button", "aria-label": label, onclick: act }, text);
    this.chart = new Chart(box, legend, again);
    this.notes = h("div");
    this.details = h("section", { hidden: true, "aria-label": "the chosen runs" },
      h("h2", {}, "Curves"),
      h("div", { class: "controls" }, h("label", { for: "quantity" }, "show ", this.quantity),
        h("label", { for: "axis" }, "over ", this.axis), logX, logY, band,
        h("label", { for: "smooth" }, "smoothing ", this.smooth, " ", this.smoothed)),
      box,
      h("div", { class: "controls" },
        button("−", () => this.chart.move(2, 0), "zoom out"), button("+", () => this.chart.move(0.5, 0), "zoom in"),
        button("←", () => this.chart.move(1, -0.5), "move left"), button("→", () => this.chart.move(1, 0.5), "move right"),
        button("all", () => this.chart.zoom(null), "show all"),
        button("CSV", () => download(`page/curves.csv?runs=${this.ids}`, "runs.csv").catch(complain), "download as CSV"),
        h("span", { class: "quiet" }, "Drag to zoom, with Shift to move.")),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "values of the curves" },
        h("table", { class: "legend-table" }, h("thead", {}, h("tr", {},
          ["line", "at", "value", "interval", "points"].map((name) => h("th", { scope: "col" }, name)))), legend)),
      this.notes);
    this.below.append(this.details);
  }

  get over() {
    return Math.round(10 ** Number(this.smooth.value));
  }

  async draw() {
    const { range } = this.chart;
    const width = Math.max(100, this.chart.box.clientWidth);
    const query = new URLSearchParams({ runs: this.ids, quantity: this.quantity.value, axis: this.axis.value,
      width: range ? 3 * width : width, log: this.boxX.checked, smooth: this.over > 1 ? this.over : 0, band: this.boxBand.checked });
    if (range) {
      const span = range[1] - range[0];
      query.set("first", range[0] - span);
      query.set("last", range[1] + span);
    }
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const found = await get(`page/curves?${query}`);
    if (this.view.closed || turn !== this.turn) return;
    const chosen = this.quantity.value;
    const names = found.quantities.length ? found.quantities : [chosen];
    if ([...this.quantity.options].map((one) => one.value).join() !== names.join())
      this.quantity.replaceChildren(...names.map((name) => option(name, name.replaceAll("_", " "), name === chosen)));
    const word = chosen === "loss" ? "loss of each step's batch" : chosen.replaceAll("_", " ");
    this.chart.draw(found.series, { logX: this.boxX.checked, logY: this.boxY.checked, xLabel: this.axis.value, yLabel: word });
  }

  async tell() {
    const found = await get(`page/about?runs=${this.ids}`);
    if (this.view.closed) return;
    const differ = Object.entries(found.differ);
    const names = found.columns.map((name) => h("th", { scope: "col" }, own(name)));
    const [ill, well] = [found.runs.filter((run) => run.findings.length), found.runs.filter((run) => !run.findings.length)];
    const value = (one) => (one === null || one === undefined ? "–" : typeof one === "object" ? JSON.stringify(one) : String(one));
    this.notes.replaceChildren(
      h("h2", {}, "What differs"),
      differ.length ? h("div", { class: "scroll words", tabindex: "0", role: "region", "aria-label": "settings that differ" },
        h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "setting"), names)), h("tbody", {}, differ.map(([path, values]) =>
          h("tr", {}, h("th", { scope: "row" }, path), values.map((one) => h("td", {}, own(value(one)))))))))
        : h("p", {}, found.runs.length > 1 ? "These runs differ in nothing but their seeds." : "Choose a second run to see what differs."),
      h("h2", {}, "The doctor"),
      h("p", { class: "quiet" }, "What the history of each run says. A whole examination also trains copies of the model for a short while."),
      ...ill.map((run) => this.findings(run)),
      well.length < 2 ? well.map((run) => this.findings(run))[0] ?? ""
        : h("details", { class: "run" }, h("summary", {}, `${well.length} runs in whose history nothing was found`),
          well.map((run) => this.findings(run))));
  }

  findings(run) {
    return h("details", { class: "run", open: run.findings.length > 0 },
      h("summary", {}, own(run.name), run.findings.length ? `: ${run.findings.length} found` : ": nothing found in its history"),
      run.findings.map((one) => h("div", { class: one.severity },
        h("strong", {}, `${one.severity}: ${one.name}`), h("p", {}, one.evidence), h("p", {}, `cure: ${one.cure}`))),
      h("p", {}, h("a", { href: `#/look?run=${run.id}` }, "look inside"), " · ",
        h("button", { type: "button", onclick: () => this.examine(run) }, "examine"), " · ",
        ["config.json", "record.json"].map((name) => [file(run.id, name), " "])),
      h("details", {}, h("summary", {}, "all settings"), h("div", { class: "words" }, h("table", {}, h("tbody", {},
        Object.entries(run.settings).map(([path, one]) => h("tr", {}, h("th", { scope: "row" }, path), h("td", {}, own(JSON.stringify(one))))))))));
  }

  async examine(run) {
    try {
      await post("page/check", { run: run.id });
      say(`the doctor examines ${run.name}`);
      location.hash = "#/experiments";
    } catch (error) {
      complain(error);
    }
  }
}

function put(cell, text, title = "") {
  if (cell.textContent !== text) cell.replaceChildren(own(text));
  if (cell.title !== title) cell.title = title;
}
