// Lines over steps: hover or arrow keys read them, a drag zooms, a drag with Shift pans.
import { h, number, own } from "./html.js";
import uPlot from "./uPlot.esm.js";

const LIGHT = ["#0072b2", "#b3470b", "#00734f", "#93408f", "#7a5600", "#5d5d58", "#b02a5b", "#2c6e7f"];
const DARK = ["#56b4e9", "#f2a05a", "#2fc99c", "#d79bd4", "#e6c34a", "#b5b6b2", "#ff8fb0", "#7fd0e0"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const dark = matchMedia("(prefers-color-scheme: dark)");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (i) => (dark.matches ? DARK : LIGHT)[i % LIGHT.length];
const dash = (i) => DASHES[Math.floor(i / LIGHT.length) % DASHES.length];
const positive = (values, scale) => values.map((v, i) => (v === null ? v : v > 0 ? v : scale[i] > 0 ? scale[i] / 1000 : null));

export class Chart {
  // ask(range): draws the chart again for [first, last], or for all with null.
  constructor(box, legend, ask) {
    [this.box, this.legend, this.ask, this.series, this.range] = [box, legend, ask, [], null];
    this.watcher = new ResizeObserver(() => this.plot?.setSize(this.size()));
    this.watcher.observe(box);
    this.repaint = () => this.options && this.draw(this.series, this.options);
    dark.addEventListener("change", this.repaint);
    box.addEventListener("keydown", (event) => this.key(event));
  }

  close() {
    this.watcher.disconnect();
    dark.removeEventListener("change", this.repaint);
    this.plot?.destroy();
  }

  size() {
    const width = Math.max(200, this.box.clientWidth);
    return { width, height: Math.round(Math.max(240, Math.min(480, width * 0.45))) };
  }

  draw(series, options) {
    [this.series, this.options] = [series.filter((one) => one.x.length), options];
    this.plot?.destroy();
    this.plot = null;
    this.tell(null);
    if (!this.series.length) {
      this.box.replaceChildren(h("p", { class: "quiet" }, "There is nothing to draw yet."));
      return;
    }
    const lines = this.series.map(({ x, middle, low, high }) => options.logY
      ? [x, positive(middle, middle), positive(low, middle), positive(high, middle)] : [x, middle, low, high]);
    const style = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") } };
    const none = { width: 0, stroke: "transparent", points: { show: false } };
    this.box.replaceChildren();
    this.plot = new uPlot({
      ...this.size(),
      legend: { show: false },
      cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
      scales: { x: { time: false, distr: options.logX ? 3 : 1, ...(this.range ? { range: this.range } : {}) },
        y: { distr: options.logY ? 3 : 1, ...(options.logY ? { range: (_, low, high) => [low * 0.98, high * 1.02] } : {}) } },
      axes: [{ ...style, label: options.xLabel, size: 40, labelSize: 20, labelGap: 0, space: 70,
        values: (_, ticks) => ticks.map(short) },
      { ...style, label: options.yLabel, size: 64, labelSize: 20, values: (_, ticks) => ticks.map(short) }],
      series: [{}, ...this.series.flatMap((one, i) =>
        [{ label: one.name, stroke: colour(i), width: 2, dash: dash(i) }, none, none])],
      bands: this.series.map((_, i) => ({ series: [3 * i + 3, 3 * i + 2], fill: `${colour(i)}40` })),
      hooks: { setCursor: [(plot) => this.tell(plot.cursor.idx)], setSelect: [(plot) => this.select(plot)] },
    }, lines.length > 1 ? uPlot.join(lines) : lines[0], this.box);
    this.plot.over.addEventListener("dblclick", () => this.zoom(null));
    this.plot.root.addEventListener("mousedown", (event) => this.pan(event), true);
  }

  select(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    this.zoom([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
  }

  zoom(range) {
    this.range = range;
    this.ask(range);
  }

  bounds() {
    const { min, max } = this.plot.scales.x;
    return [min, max];
  }

  // Scales what is seen by `factor`, and moves it by a share of itself.
  move(factor, share) {
    if (!this.plot) return;
    const log = this.options.logX ? [Math.log, Math.exp] : [(x) => x, (x) => x];
    const [low, high] = this.bounds().map(log[0]);
    const [middle, half] = [(low + high) / 2 + share * (high - low), (factor * (high - low)) / 2];
    this.zoom([middle - half, middle + half].map(log[1]));
  }

  pan(event) {
    if (!event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const [plot, start, [low, high]] = [this.plot, event.clientX, this.bounds()];
    const width = plot.over.clientWidth;
    const at = (share) => this.options.logX
      ? [low, high].map((x) => x * (high / low) ** -share) : [low, high].map((x) => x - share * (high - low));
    let range = [low, high];
    const during = (e) => {
      range = at((e.clientX - start) / width);
      plot.scales.x.range = () => range;
      plot.setScale("x", { min: range[0], max: range[1] });
    };
    const end = () => {
      removeEventListener("mousemove", during);
      removeEventListener("mouseup", end);
      this.zoom(range);
    };
    addEventListener("mousemove", during);
    addEventListener("mouseup", end);
  }

  key(event) {
    const act = {
      ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), "+": () => this.move(0.5, 0),
      "-": () => this.move(2, 0), PageUp: () => this.move(1, -0.5), PageDown: () => this.move(1, 0.5),
      Escape: () => this.zoom(null),
    }[event.key];
    if (!act || !this.plot) return;
    event.preventDefault();
    act();
  }

  step(by) {
    const x = this.plot.data[0];
    const [low, high] = this.bounds();
    const seen = x.map((_, i) => i).filter((i) => x[i] >= low && x[i] <= high);
    const now = seen.indexOf(this.plot.cursor.idx);
    const next = seen[Math.max(0, Math.min(seen.length - 1, now < 0 ? (by > 0 ? 0 : seen.length - 1) : now + by))];
    if (next === undefined) return;
    const left = this.plot.valToPos(x[next], "x");
    this.plot.setCursor({ left, top: this.plot.over.clientHeight / 2 });
  }

  // What each line is at a place, or at its end.
  tell(index) {
    const at = index === null || index === undefined || !this.plot ? null : this.plot.data[0][index];
    this.legend.replaceChildren(...this.series.map((one, i) => {
      const k = at === null ? one.x.length - 1 : nearest(one.x, at);
      const swatch = h("span", { class: "swatch" });
      swatch.style.borderTopColor = colour(i);
      swatch.style.borderTopStyle = dash(i).length ? "dashed" : "solid";
      const around = one.low[k] !== one.high[k] ? ` [${number(one.low[k])}, ${number(one.high[k])}]` : "";
      return h("tr", {}, h("th", { scope: "row" }, swatch, own(one.name)), h("td", {}, number(Math.round(one.x[k]))),
        h("td", {}, `${number(one.middle[k])}${around}`), h("td", {}, one.kind), h("td", {}, number(one.n)));
    }));
  }
}

function nearest(x, at) {
  let [low, high] = [0, x.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] <= at) low = middle;
    else high = middle;
  }
  return at - x[low] <= x[high] - at ? low : high;
}

const short = (value) => {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)} M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)} k`;
  return size && size < 1e-3 ? value.toExponential(0) : String(+value.toPrecision(6));
};
