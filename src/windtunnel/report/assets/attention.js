import { css, prepare, shades, unpack } from "./heat.js";

// Draws the maps of a model's heads into the elements that `root` has for them.
export function showAttention(root, data) {
  const { labels, n_layers, n_heads } = data;
  const T = labels.length;
  const triangle = (T * (T + 1)) / 2;
  const weights = unpack(data.weights);
  const weight = (layer, head, query, key) =>
    key > query ? 0 : weights((layer * n_heads + head) * triangle + (query * (query + 1)) / 2 + key);

  const layerBox = root.querySelector("#layer");
  const headBox = root.querySelector("#head");
  const map = root.querySelector("#map");
  const heads = root.querySelector("#heads");
  const tokens = [...root.querySelectorAll(".token")];
  const readout = root.querySelector("#readout");
  const rows = root.querySelector("#rows");
  const cell = Math.max(3, Math.min(26, Math.floor(600 / T)));
  const every = Math.ceil(13 / cell);
  const font = `${Math.min(13, Math.max(10, cell * 0.7))}px ui-monospace, "DejaVu Sans Mono", monospace`;
  let query = T - 1;
  let key = -1;

  function paint(pen, layer, head, size, left, top) {
    const colour = shades();
    for (let q = 0; q < T; q++)
      for (let k = 0; k <= q; k++) {
        pen.fillStyle = colour[Math.round(255 * weight(layer, head, q, k))];
        pen.fillRect(left + k * size, top + q * size, size, size);
      }
  }

  let margin = 0;
  function draw() {
    const [layer, head] = [Number(layerBox.value), Number(headBox.value)];
    const pen0 = map.getContext("2d");
    pen0.font = font;
    margin = 8 + Math.max(...labels.map((label) => pen0.measureText(label).width));
    const pen = prepare(map, margin + T * cell + 2, margin + T * cell + 2);
    paint(pen, layer, head, cell, margin, margin);
    pen.strokeStyle = css("--line");
    pen.strokeRect(margin - 0.5, margin - 0.5, T * cell + 1, T * cell + 1);
    pen.font = font;
    pen.fillStyle = css("--ink");
    pen.textBaseline = "middle";
    for (let i = 0; i < T; i += every) {
      const middle = margin + (i + 0.5) * cell;
      pen.textAlign = "right";
      pen.fillText(labels[i], margin - 4, middle);
      pen.save();
      pen.translate(middle, margin - 4);
      const upright = labels[i].length === 1;
      if (!upright) pen.rotate(-Math.PI / 2);
      pen.textAlign = upright ? "center" : "left";
      pen.fillText(labels[i], 0, upright ? -4 : 0);
      pen.restore();
    }
    pen.strokeStyle = css("--truth");
    pen.lineWidth = 2;
    pen.strokeRect(margin, margin + query * cell, (query + 1) * cell, cell);
    if (key >= 0) pen.strokeRect(margin + key * cell, margin + query * cell, cell, cell);
    [...heads.querySelectorAll("button")].forEach((button) =>
      button.setAttribute("aria-pressed", String(button.value === `${layer},${head}`)));
    tell(layer, head);
  }

  function tell(layer, head) {
    const seen = labels.map((label, k) => [weight(layer, head, query, k), k]).slice(0, query + 1);
    tokens.forEach((token, k) => {
      token.style.setProperty("--s", k <= query ? seen[k][0] : 0);
      token.setAttribute("aria-selected", String(k === query));
      token.tabIndex = k === query ? 0 : -1;
    });
    readout.textContent = key < 0 ? `Token ${query + 1}, ${labels[query]}, looks at:`
      : `Token ${query + 1}, ${labels[query]}, gives ${weight(layer, head, query, key).toFixed(4)} to token ${key + 1}, ${labels[key]}. Its largest weights:`;
    rows.replaceChildren(...seen.sort((a, b) => b[0] - a[0]).slice(0, 8).map(([w, k]) => {
      const row = document.createElement("tr");
      row.insertCell().textContent = labels[k];
      row.insertCell().textContent = k === query ? "itself" : `${query - k} back`;
      row.insertCell().textContent = w.toFixed(4);
      const bar = row.insertCell().appendChild(document.createElement("div"));
      bar.className = "bar";
      bar.appendChild(document.createElement("i")).style.width = `${100 * w}%`;
      return row;
    }));
  }

  function choose(q, k = -1) {
    [query, key] = [Math.max(0, Math.min(T - 1, q)), k];
    if (key > query) key = -1;
    draw();
  }

  function overview() {
    heads.style.gridTemplateColumns = `auto repeat(${n_heads}, max-content)`;
    heads.replaceChildren(document.createElement("span"));
    for (let head = 0; head < n_heads; head++)
      heads.appendChild(document.createElement("span")).textContent = `head ${head + 1}`;
    for (let layer = 0; layer < n_layers; layer++) {
      heads.appendChild(document.createElement("span")).textContent = `layer ${layer + 1}`;
      for (let head = 0; head < n_heads; head++) {
        const button = heads.appendChild(document.createElement("button"));
        button.value = `${layer},${head}`;
        button.setAttribute("aria-label", `layer ${layer + 1}, head ${head + 1}`);
        paint(prepare(button.appendChild(document.createElement("canvas")), 66, 66), layer, head, 66 / T, 0, 0);
        button.addEventListener("click", () => { [layerBox.value, headBox.value] = [layer, head]; draw(); });
      }
    }
  }

  function under(event) {
    const box = map.getBoundingClientRect();
    const k = Math.floor((event.clientX - box.left - margin) / cell);
    const q = Math.floor((event.clientY - box.top - margin) / cell);
    if (q >= 0 && q < T && k < T) choose(q, k >= 0 && k <= q ? k : -1);
  }

  map.addEventListener("mousemove", under);
  map.addEventListener("click", under);
  map.addEventListener("keydown", (event) => {
    const [dq, dk] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [];
    if (dq === undefined) return;
    event.preventDefault();
    choose(query + dq, Math.max(0, Math.min((key < 0 ? query : key) + dk, query + dq)));
  });
  tokens.forEach((token, i) => {
    token.addEventListener("focus", () => choose(i));
    token.addEventListener("click", () => token.focus());
    token.addEventListener("keydown", (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: T - 1 }[event.key];
      if (to === undefined || !tokens[to]) return;
      event.preventDefault();
      tokens[to].focus();
    });
  });
  for (const box of [layerBox, headBox]) box.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (map.isConnected) { overview(); draw(); } });
  overview();
  draw();
}

const block = document.getElementById("data");
if (block) showAttention(document, JSON.parse(block.textContent));
