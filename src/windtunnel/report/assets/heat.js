export function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const shares = new Uint16Array(bytes.buffer);
  return (i) => shares[i] / 65535;
}

export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
function shade(w) {
  const [low, high] = [channels(css("--calm")), channels(css("--bar"))];
  return `rgb(${low.map((c, i) => Math.round(c + (high[i] - c) * w))})`;
}
export const shades = () => Array.from({ length: 256 }, (_, i) => shade(i / 255));

export function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return pen;
}

