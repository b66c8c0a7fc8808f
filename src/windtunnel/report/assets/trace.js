const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};
const number = (p) => (p === null ? "–" : p === 0 ? "0" : p < 0.00005 ? p.toExponential(0) : p.toFixed(4));

function facts(token, how) {
  const parts = [];
  if (token.probability !== null) parts.push(`${how} p = ${number(token.probability)}`);
  if (token.probability_1 === null) return "The first token: nothing stands before it, so it has no probability.";
  parts.push(`p = ${number(token.probability_1)} at T = 1`, `rank ${token.rank}`, `${token.surprise_bits.toFixed(2)} bits`);
  if (token.true_probability !== null) parts.push(`true p = ${number(token.true_probability)}`,
    `total variation ${number(token.total_variation)}`);
  return parts.join(" · ");
}

function bar(p, truth) {
  const box = make("div", undefined, "bar");
  box.append(make("i"));
  box.firstChild.style.width = `${100 * p}%`;
  if (truth !== null) box.append(make("b")), (box.lastChild.style.left = `${100 * truth}%`);
  return box;
}

// Lets the tokens below a root be looked at: `root` has them as .token, and a panel for what is said of one.
// extra(index, alternative): an element to stand beside each alternative.
export function showTrace(root, data, extra) {
  const spans = [...root.querySelectorAll(".token")];
  const panel = root.querySelector("#panel");
  let pinned = Math.min(data.n_prompt, spans.length - 1);

  function show(index) {
    const token = data.tokens[index];
    spans.forEach((span, i) => {
      span.setAttribute("aria-selected", String(i === index));
      span.tabIndex = i === index ? 0 : -1;
    });
    const heading = make("h2", `Token ${index + 1}: ${token.text}`);
    const parts = [heading, make("p", facts(token, data.how ?? "sampled with"))];
    if (token.alternatives.length) {
      const truth = token.true_probability !== null;
      const sampled = token.probability !== null && (data.column || data.sampling.temperature > 0);
      const table = make("table");
      const head = table.createTHead().insertRow();
      for (const name of ["token", ...(sampled ? [data.column ?? "as sampled"] : []), "T = 1", ...(truth ? ["true"] : []), "", ...(extra ? [""] : [])])
        head.append(make("th", name));
      const body = table.createTBody();
      for (const other of token.alternatives) {
        const row = body.insertRow();
        row.append(make("td"));
        row.firstChild.append(other.id === token.id ? make("mark", `›${other.text}`, "chosen") : make("span", ` ${other.text}`));
        for (const p of [...(sampled ? [other.probability] : []), other.probability_1, ...(truth ? [other.true_probability] : [])])
          row.append(make("td", number(p)));
        row.insertCell().append(bar(sampled ? other.probability : other.probability_1, other.true_probability));
        if (extra) row.insertCell().append(extra(index, other));
      }
      parts.push(table);
    }
    panel.replaceChildren(...parts);
  }

  spans.forEach((span, i) => {
    span.addEventListener("mouseenter", () => show(i));
    span.addEventListener("focus", () => show((pinned = i)));
    span.addEventListener("click", () => span.focus());
    span.addEventListener("keydown", (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: spans.length - 1 }[event.key];
      if (to === undefined || !spans[to]) return;
      event.preventDefault();
      spans[to].focus();
    });
  });
  root.querySelector(".text").addEventListener("mouseleave", () => show(pinned));
  if (spans.length) show(pinned);
  return { show, pinned: () => pinned };
}

const block = document.getElementById("data");
if (block) showTrace(document, JSON.parse(block.textContent));
