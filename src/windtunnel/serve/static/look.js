// A text in a model: surprise and alternatives, attention, the lens, and what could have been written instead.
import { complain, get, h, number, option, own, post, Refused, say } from "./html.js";
import { showAttention } from "./attention.js";
import { showTrace } from "./trace.js";
import { showTranslations } from "./translation.js";

export function openLook(main, params, view) {
  const look = new Look(main, view);
  view.update = (now) => look.begin(now);
  look.begin(params);
}

const field = (id, label, props) => {
  const input = h("input", { id, ...props });
  return [h("label", { for: id }, `${label} `, input), input];
};

class Look {
  constructor(main, view) {
    this.view = view;
    this.run = h("select", { id: "run", required: true });
    this.text = h("textarea", { id: "text", rows: "3", maxlength: "20000", spellcheck: "false" });
    const [tokens, boxTokens] = field("tokens", "tokens to add", { type: "number", min: "0", max: "300", value: "20", required: true });
    const [warm, boxWarm] = field("temperature", "temperature", { type: "number", min: "0", max: "100", step: "any", value: "0.8", required: true });
    const [k, boxK] = field("topk", "top-k", { type: "number", min: "1" });
    const [p, boxP] = field("topp", "top-p", { type: "number", min: "0.001", max: "1", step: "any" });
    const [seed, boxSeed] = field("seed", "seed", { type: "number", min: "0", value: "0", required: true });
    Object.assign(this, { boxTokens, boxWarm, boxK, boxP, boxSeed });
    this.button = h("button", {}, "look");
    this.result = h("div");
    main.append(h("form", { onsubmit: (event) => { event.preventDefault(); this.ask(); } },
      h("div", { class: "controls" }, h("label", { for: "run" }, "run ", this.run)),
      h("label", { for: "text" }, "text"), this.text,
      h("div", { class: "controls" }, tokens, warm, k, p, seed, this.button)), this.result);
  }

  async begin(params) {
    try {
      let found = await get("page/runs");
      while (found.unread && !found.groups.length) found = await get("page/runs");
      const runs = found.groups.flatMap((group) => group.runs).filter((run) => run.state !== "damaged");
      const chosen = params.get("run") ?? this.run.value;
      this.run.replaceChildren(...runs.map((run) => option(run.id, run.name, run.id === chosen)));
      if (!runs.length) complain(new Refused("there is no run to look into; train one: windtunnel train names"));
      if (params.has("text")) this.text.value = params.get("text");
    } catch (error) {
      complain(error);
    }
  }

  settings() {
    const value = (box) => (box.value === "" ? null : Number(box.value));
    return { run: this.run.value, text: this.text.value, tokens: value(this.boxTokens), temperature: value(this.boxWarm),
      top_k: value(this.boxK), top_p: value(this.boxP), seed: value(this.boxSeed) };
  }

  async ask(more = {}, parent = null) {
    this.button.disabled = true;
    document.getElementById("problem").replaceChildren();
    try {
      const asked = { ...(parent?.asked ?? this.settings()), ...more };
      const data = await post("page/look", asked);
      if (this.view.closed) return;
      if (data.kind === "translation") return this.translations(data);
      const node = { asked, data, parent, children: [], from: more.ids?.length ?? 0, text: asked.text };
      parent?.children.push(node);
      if (!parent) this.root = node;
      this.show(node);
      say(parent ? "written from the alternative" : "done");
    } catch (error) {
      complain(error);
    } finally {
      this.button.disabled = false;
    }
  }

  ids() {
    return this.node.data.tokens.map((token) => token.id);
  }

  show(node) {
    this.node = node;
    const { data } = node;
    const top = Math.log2(Math.max(2, data.vocab_size));
    const spans = data.tokens.flatMap((token, i) => {
      const kinds = ["token", i < data.n_prompt && "prompt", data.shares[i] === null && "unknown"].filter(Boolean);
      const bits = token.surprise_bits === null ? "" : `, ${token.surprise_bits.toFixed(2)} bits`;
      const span = h("span", { class: kinds.join(" "), role: "option", tabindex: i ? "-1" : "0", "aria-label": `${token.text}${bits}`,
        "aria-selected": "false" }, own(token.text));
      span.style.setProperty("--s", data.shares[i] ?? 0);
      return [span, h(token.text.endsWith("⏎") ? "br" : "wbr")];
    });
    const at = h("input", { type: "number", id: "again", min: "0", max: "100", step: "any", value: "1" });
    const panel = h("section", { class: "panel bars", id: "panel", "aria-live": "polite", "aria-label": "the token" });
    const text = h("div", { class: "text", role: "listbox", "aria-label": "tokens; arrow keys move" }, spans);
    const looked = h("div", {}, text, panel);
    this.result.replaceChildren(
      h("h2", {}, own(data.run), `, step ${data.step}`),
      h("p", { class: "quiet" }, data.note),
      h("div", { class: "legend quiet" }, h("span", {}, "surprise: 0 bits"), h("span", { class: "scale" }),
        h("span", {}, `${top.toFixed(1)} bits, a blind guess among ${data.vocab_size} tokens`), h("span", {}, "dashed: the prompt")),
      looked,
      h("p", { class: "quiet" }, data.totals_line),
      h("form", { class: "controls", onsubmit: (event) => { event.preventDefault(); this.again(Number(at.value)); } },
        h("label", { for: "again" }, "the same tokens at temperature ", at), h("button", {}, "show")),
      this.tree(), this.table(data),
      this.later("Attention", "page/attention", (found) => attention(found)),
      this.later("What each layer would say", "page/lens", (found) => lens(found)));
    panel.classList.toggle("follows", text.offsetHeight > innerHeight / 2);
    this.trace = showTrace(looked, data, (index, other) => this.goOn(index, other));
  }

  goOn(index, other) {
    if (this.node.data.tokens[index].probability_1 === null) return h("span");
    const ids = [...this.ids().slice(0, index), other.id];
    return h("button", { type: "button", "aria-label": `go on from ${other.text}`,
      onclick: () => this.ask({ ids, tokens: Math.max(1, this.settings().tokens ?? 20) }, this.node) }, "go on");
  }

  // The root text, and below each text those that were written on from one of its alternatives.
  tree() {
    const item = (node) => {
      const words = node.data.tokens.slice(Math.max(0, node.from - 1)).map((token) => token.piece || token.text).join("");
      const isShown = node === this.node;
      return h("li", {}, h("button", { type: "button", class: "plain branch", "aria-current": isShown ? "true" : null,
        onclick: () => this.show(node) }, own(words.length > 80 ? `${words.slice(0, 80)}…` : words || "(empty)")),
      node.children.length > 0 && h("ul", {}, node.children.map(item)));
    };
    return h("section", {}, h("h2", {}, "Continuations"),
      h("p", { class: "quiet" }, "Choose a token, then “go on” beside an alternative."), h("ul", { class: "tree" }, item(this.root)));
  }

  table(data) {
    const sampled = data.tokens.length > data.n_prompt;
    const rows = data.tokens.map((t) => h("tr", {}, h("td", {}, own(t.text)), sampled && h("td", {}, number(t.probability)),
      h("td", {}, number(t.probability_1)), h("td", {}, number(t.rank)), h("td", {}, number(t.surprise_bits))));
    const names = ["token", ...(sampled ? ["as sampled"] : []), "T = 1", "rank", "bits"];
    return h("details", {}, h("summary", {}, "All numbers as a table"), h("div", { class: "scroll", tabindex: "0", role: "region",
      "aria-label": "all numbers" }, h("table", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows))));
  }

  // A part that is computed when it is opened.
  later(title, path, draw) {
    const inside = h("div", {}, h("p", { class: "quiet" }, "being computed"));
    const { asked } = this.node;
    const ids = this.ids();
    const part = h("details", { class: "later" }, h("summary", {}, title), inside);
    part.addEventListener("toggle", async () => {
      if (!part.open || part.asked) return;
      part.asked = true;
      try {
        const made = draw(await post(path, { run: asked.run, text: asked.text, ids }));
        inside.replaceChildren(made.element);
        made.begin?.();
      } catch (error) {
        inside.replaceChildren(h("p", { class: "problem" }, error.message));
      }
    });
    return part;
  }

  async again(temperature) {
    const { data, asked } = this.node;
    try {
      const shown = data.tokens.map((token) => token.alternatives.map((other) => other.id));
      const found = await post("page/again", { run: asked.run, text: asked.text, ids: this.ids(), shown, temperature });
      const tokens = data.tokens.map((token, i) => ({ ...token, probability: found.tokens[i].own,
        alternatives: token.alternatives.map((other, j) => ({ ...other, probability: found.tokens[i].shown[j] })) }));
      const place = this.trace.pinned();
      const name = `T = ${temperature}`;
      // The tokens keep what they listen to, so they are made anew.
      const text = this.result.querySelector(".text");
      for (const span of text.querySelectorAll(".token")) span.replaceWith(span.cloneNode(true));
      this.trace = showTrace(text.parentElement, { ...data, tokens, column: name, how: `at ${name}` },
        (index, other) => this.goOn(index, other));
      this.trace.show(place);
      say(`probabilities at temperature ${temperature}`);
    } catch (error) {
      complain(error);
    }
  }

  translations(data) {
    const parts = data.pairs.map((pair, place) => h("section", {},
      h("h2", {}, own(pair.source), " → ", own(pair.target)), h("p", { class: "quiet" }, `probability ${number(pair.probability)}`),
      pair.kinds.map((heads, kind) => [h("h3", {}, heads.kind), heads.first.map((_, layer) => h("div", { class: "row" },
        Array.from({ length: heads.n_heads }, (__, head) => h("figure", {}, h("canvas", { tabindex: "0", role: "img",
          "data-at": [place, kind, layer, head].join(), "aria-label": `${heads.kind}, layer ${layer + 1}, head ${head + 1}; arrow keys move` }),
        h("figcaption", {}, `layer ${layer + 1}, head ${head + 1}`)))))])));
    const all = h("div", { class: "heat" }, h("p", { class: "quiet" }, "Rows: the token that looks or is written; columns: what it looks at."),
      parts, h("p", { id: "readout", class: "panel", "aria-live": "polite" }, "No weight is chosen."));
    this.result.replaceChildren(all);
    showTranslations(all, data.pairs.map((pair) => pair.kinds));
  }
}

function attention(data) {
  const numbers = (n) => Array.from({ length: n }, (_, i) => option(i, i + 1));
  const tokens = data.labels.flatMap((label) => [h("span", { class: "token", role: "option", tabindex: "-1", "aria-selected": "false" },
    own(label)), h("wbr")]);
  const element = h("div", { class: "heat" },
    h("p", { class: "quiet" }, `Where each token looks; each row sums to 1. The logits of this pass differ from the usual ones by at most ${data.max_difference.toExponential(1)}.`),
    h("div", { class: "controls" }, h("label", { for: "layer" }, "layer ", h("select", { id: "layer" }, numbers(data.n_layers))),
      h("label", { for: "head" }, "head ", h("select", { id: "head" }, numbers(data.n_heads))),
      h("span", { class: "legend quiet" }, h("span", {}, "weight: 0"), h("span", { class: "scale" }), h("span", {}, "1"))),
    h("div", { class: "text", role: "listbox", "aria-label": "tokens; arrow keys choose the one that looks" }, tokens),
    h("div", { class: "split" }, h("div", { class: "map", tabindex: "0", role: "region", "aria-label": "map" },
      h("p", { class: "quiet" }, "↓ token that looks, → token looked at"),
      h("canvas", { id: "map", tabindex: "0", role: "img", "aria-label": "attention of the chosen layer and head; arrow keys move" })),
    h("section", { class: "panel bars", "aria-live": "polite", "aria-label": "largest weights" }, h("p", { id: "readout" }),
      h("table", {}, h("tbody", { id: "rows" })))),
    h("h3", {}, "All heads"), h("div", { class: "heads", id: "heads" }));
  return { element, begin: () => showAttention(element, data) };
}

function lens(data) {
  const label = (i) => (i === 0 ? "before the first" : `after layer ${i}`);
  const rows = data.layers.map((cells, layer) => h("tr", {}, h("th", { scope: "row" }, label(layer)), cells.map((cell, i) => {
    const [text, p] = cell.best[0];
    const isRight = text === data.labels[i + 1];
    const box = h("td", { class: `guess${isRight ? " right" : ""}`, title: [...cell.best.map(([word, share]) => `${word} ${number(share)}`),
      ...(cell.own === null ? [] : [`the token that comes next ${number(cell.own)}`])].join("\n") },
    own(text), h("small", {}, p.toFixed(2)));
    box.style.setProperty("--s", p);
    return box;
  })));
  const heads = data.labels.map((text) => h("th", { scope: "col" }, own(text)));
  return { element: h("div", { class: "heat" },
    h("p", { class: "quiet" }, "Below each token: what the model would say next if it ended at that layer, and its probability. A frame: this is the token that comes next."),
    h("div", { class: "scroll lens", tabindex: "0", role: "region", "aria-label": "guesses of each layer" },
      h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "token"), heads)), h("tbody", {}, rows)))) };
}
