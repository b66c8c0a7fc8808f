// What every view needs: elements whose texts are text nodes only, and questions to the server.

export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (["value", "checked", "disabled", "open"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// A name from elsewhere: its marks of direction turn nothing but itself.
export const own = (text, tag = "bdi") => h(tag, { class: "own" }, String(text));

export const option = (value, text, chosen) => {
  const element = h("option", { value }, text);
  element.selected = chosen;
  return element;
};

export function say(text) {
  document.getElementById("said").textContent = text;
}

export const number = (value, digits = 4) => {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4)) return value.toExponential(2);
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(digits);
};

export const estimate = (found) => {
  if (found.low === null || found.low === undefined) return number(found.estimate);
  return `${number(found.estimate)} [${number(found.low)}, ${number(found.high)}]`;
};

const meta = document.querySelector('meta[name="token"]');
export const isLocal = meta !== null;
const KEPT = "windtunnel-token";
let token = isLocal ? meta.content : sessionStorage.getItem(KEPT);
const base = new URL("../", import.meta.url);
export const address = (path) => new URL(path, base).href;

let asking = null;
function askToken() {
  asking ??= new Promise((resolve) => {
    const input = h("input", { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: "false" });
    const dialog = h("dialog", { "aria-labelledby": "token-title" },
      h("h2", { id: "token-title" }, "This server wants its token"),
      h("p", {}, "windtunnel serve printed it. It is kept until this tab is closed."),
      h("form", { method: "dialog", onsubmit: () => {
        token = input.value.trim();
        sessionStorage.setItem(KEPT, token);
        dialog.close();
        dialog.remove();
        asking = null;
        resolve();
      } }, h("label", { for: "token" }, "token "), input, " ", h("button", {}, "use it")));
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

export class Refused extends Error {}

async function send(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(address(path), { ...options, headers, cache: "no-store" }).catch((error) => {
    throw new Refused(`the server does not answer: ${error.message}`);
  });
  if (answer.status !== 401 || isLocal) return answer;
  await askToken();
  return send(path, options);
}

async function refuse(answer) {
  let message = `the server answered ${answer.status}`;
  try {
    message = (await answer.json()).error.message;
  } catch { /* no JSON: the status says it */ }
  throw new Refused(message);
}

// What a GET gives, or null where it is what the tag stands for.
export async function get(path, tags) {
  const known = tags?.get(path);
  const answer = await send(path, known ? { headers: { "If-None-Match": known } } : {});
  if (answer.status === 304) return null;
  if (!answer.ok) await refuse(answer);
  tags?.set(path, answer.headers.get("ETag"));
  return answer.json();
}

export async function post(path, data) {
  const headers = { "Content-Type": "application/json" };
  const answer = await send(path, { method: "POST", headers, body: JSON.stringify(data) });
  if (!answer.ok) await refuse(answer);
  return answer.json();
}

export async function download(path, name) {
  const answer = await send(path);
  if (!answer.ok) await refuse(answer);
  const link = h("a", { href: URL.createObjectURL(await answer.blob()), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const place = (id, entry) => `page/artefact/${encodeURIComponent(id)}/${encodeURIComponent(entry)}`;
export const artefact = (id, entry) => address(place(id, entry));

// A file of a run or a result: a link where the browser may ask for it by itself, else a download.
export function file(id, entry, text = entry) {
  const path = place(id, entry);
  if (isLocal) return h("a", { href: address(path), target: "_blank", rel: "noopener noreferrer" }, own(text));
  return h("button", { type: "button", class: "link", onclick: () => download(path, entry).catch(complain) }, own(text));
}

export function complain(error) {
  const box = document.getElementById("problem");
  if (box === null) return;
  box.replaceChildren(h("p", { class: "problem" }, error.message, " ",
    h("button", { type: "button", onclick: () => box.replaceChildren() }, "dismiss")));
  if (!(error instanceof Refused)) console.error(error);
}

// Calls a function again and again while the view is there; a hidden tab waits.
export function poll(seconds, view, ask) {
  const round = async () => {
    if (view.closed) return;
    try {
      if (!document.hidden) await ask();
    } catch (error) {
      if (!view.closed) complain(error);
    }
    if (!view.closed) view.timer = setTimeout(round, 1000 * (typeof seconds === "function" ? seconds() : seconds));
  };
  round();
}
