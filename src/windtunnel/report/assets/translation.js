import { css, prepare, shades, unpack } from "./heat.js";

// Draws each canvas below a root, whose data-at says which source, kind, layer and head it shows.
export function showTranslations(root, data) {
  const readout = root.querySelector("#readout");
  const font = '12px ui-monospace, "DejaVu Sans Mono", monospace';
  const canvases = [...root.querySelectorAll("canvas")];
  const chosen = new Map();

  for (const kinds of data)
    for (const kind of kinds) kind.weights = unpack(kind.weights);

  function mapOf(canvas) {
    const [source, kind, layer, head] = canvas.dataset.at.split(",").map(Number);
    const heads = data[source][kind];
    const [T, S] = [heads.rows.length, heads.columns.length];
    const begin = (layer * heads.n_heads + head) * T * S;
    const cell = Math.max(4, Math.min(20, Math.floor(320 / Math.max(T, S))));
    return { heads, layer, head, T, S, cell, weight: (t, s) => heads.weights(begin + t * S + s) };
  }

  function widest(pen, labels) {
    pen.font = font;
    return 8 + Math.max(...labels.map((label) => pen.measureText(label).width));
  }

  function draw(canvas) {
    const { heads, layer, T, S, cell, weight } = mapOf(canvas);
    const pen0 = canvas.getContext("2d");
    const [left, top] = [widest(pen0, heads.rows), widest(pen0, heads.columns)];
    const pen = prepare(canvas, left + S * cell + 2, top + T * cell + 2);
    canvas.corner = [left, top];
    const [colour, hidden] = [shades(), css("--line")];
    for (let t = 0; t < T; t++)
      for (let s = 0; s < S; s++) {
        const isSeen = s >= heads.first[layer][t] && s <= heads.last[layer][t];
        pen.fillStyle = isSeen ? colour[Math.round(255 * weight(t, s))] : hidden;
        pen.fillRect(left + s * cell, top + t * cell, cell, cell);
      }
    label(pen, heads, cell, left, top);
    pen.strokeStyle = css("--line");
    pen.strokeRect(left - 0.5, top - 0.5, S * cell + 1, T * cell + 1);
    pen.strokeStyle = css("--truth");
    for (const [t, s] of heads.equal) pen.strokeRect(left + s * cell + 0.5, top + t * cell + 0.5, cell - 1, cell - 1);
    if (heads.split > 0 && heads.split < S) line(pen, left + heads.split * cell, top, T * cell);
    const at = chosen.get(canvas);
    if (!at) return;
    pen.strokeStyle = css("--ink");
    pen.lineWidth = 2;
    pen.strokeRect(left + at[1] * cell, top + at[0] * cell, cell, cell);
  }

  function line(pen, x, top, height) {
    pen.fillStyle = css("--ink");
    pen.fillRect(x - 1, 0, 2, top + height);
  }

  function label(pen, heads, cell, left, top) {
    const every = Math.ceil(12 / cell);
    pen.font = font;
    pen.fillStyle = css("--ink");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (let t = 0; t < heads.rows.length; t += every) pen.fillText(heads.rows[t], left - 4, top + (t + 0.5) * cell);
    pen.textAlign = "left";
    for (let s = 0; s < heads.columns.length; s += every) {
      pen.save();
      pen.translate(left + (s + 0.5) * cell, top - 4);
      pen.rotate(-Math.PI / 2);
      pen.fillText(heads.columns[s], 0, 0);
      pen.restore();
    }
  }

  function choose(canvas, t, s) {
    const { heads, layer, head, T, S, weight } = mapOf(canvas);
    const at = [Math.max(0, Math.min(T - 1, t)), Math.max(0, Math.min(S - 1, s))];
    const before = [...chosen.keys()];
    chosen.clear();
    chosen.set(canvas, at);
    for (const other of new Set([...before, canvas])) draw(other);
    const isSeen = at[1] >= heads.first[layer][at[0]] && at[1] <= heads.last[layer][at[0]];
    readout.textContent = `${heads.kind}, layer ${layer + 1}, head ${head + 1}: row ${at[0] + 1}, ${heads.rows[at[0]]}, `
      + (isSeen ? `looks at column ${at[1] + 1}, ${heads.columns[at[1]]}, with ${weight(...at).toFixed(4)}`
        : `may not look at column ${at[1] + 1}, ${heads.columns[at[1]]}`);
  }

  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  for (const canvas of canvases) {
    const under = (event) => {
      const [box, { T, S, cell }] = [canvas.getBoundingClientRect(), mapOf(canvas)];
      const t = Math.floor((event.clientY - box.top - canvas.corner[1]) / cell);
      const s = Math.floor((event.clientX - box.left - canvas.corner[0]) / cell);
      if (t >= 0 && s >= 0 && t < T && s < S) choose(canvas, t, s);
    };
    canvas.addEventListener("mousemove", under);
    canvas.addEventListener("click", under);
    canvas.addEventListener("focus", () => choose(canvas, ...(chosen.get(canvas) || [0, 0])));
    canvas.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      const [t, s] = chosen.get(canvas) || [0, 0];
      choose(canvas, t + step[0], s + step[1]);
    });
  }
  const drawAll = () => canvases.forEach((canvas) => canvas.isConnected && draw(canvas));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
}

const block = document.getElementById("data");
if (block) showTranslations(document, JSON.parse(block.textContent));
