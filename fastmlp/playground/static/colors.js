// Colours of the theme, and maps of bytes as pictures.

const dark = matchMedia("(prefers-color-scheme: dark)");

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

const THEMES = {
  light: { neutral: rgb("#f4f5f7"), negative: rgb("#ef7d17"), positive: rgb("#2277d4"), pale: 0.52, ring: "#ffffff", ink: "#1b2330", faint: "#dfe3e9", quiet: "#5a6576" },
  dark: { neutral: rgb("#20262f"), negative: rgb("#ff9138"), positive: rgb("#4b9cf5"), pale: 0.5, ring: "#0d1015", ink: "#eef1f5", faint: "#333b47", quiet: "#a3aebd" },
};

// The first two are the negative and the positive colour, so two classes look like the sign of a unit.
const CLASSES = {
  light: ["#ef7d17", "#2277d4", "#12966f", "#c2387e", "#7c54d1", "#8a7400"].map(rgb),
  dark: ["#ff9138", "#4b9cf5", "#2fc095", "#f06aac", "#a98bf5", "#d3b526"].map(rgb),
};

const LAYERS = {
  light: ["#0b7a55", "#2277d4", "#8b4fd0", "#c2387e", "#b35309", "#8a7400", "#4d5766"],
  dark: ["#4fd3a5", "#5ab8f0", "#b79bff", "#ff8bb0", "#ffb26b", "#e0cc50", "#c0cad8"],
};

export let theme, classes, layers;
let signed, pale; // the colours of a byte: of a unit; of the output, on which the points stand out

function choose() {
  const name = dark.matches ? "dark" : "light";
  theme = THEMES[name];
  classes = CLASSES[name];
  layers = LAYERS[name];
  signed = ramp(1);
  pale = ramp(theme.pale);
}

function ramp(most) {
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const share = Math.max(-1, Math.min(1, (value - 128) / 127));
    const color = share < 0 ? theme.negative : theme.positive;
    return word(mixed(theme.neutral, color, most * Math.abs(share) ** 0.85));
  });
}

export function onTheme(call) {
  dark.addEventListener("change", () => {
    choose();
    call();
  });
}

const mixed = (a, b, share) => a.map((value, i) => value + (b[i] - value) * share);

// a pixel of ImageData; all browsers run on little-endian machines
const word = ([r, g, b]) => (255 << 24) | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r);

export const css = ([r, g, b], alpha = 1) => `rgb(${Math.round(r)} ${Math.round(g)} ${Math.round(b)} / ${alpha})`;

export const targetColor = (target, task, range) =>
  task === "classification"
    ? classes[target]
    : mixed(theme.neutral, target < 0 ? theme.negative : theme.positive, Math.min(1, Math.abs(target) / range[1]));

// Draw n x n bytes, 128 for 0, on a canvas of n x n pixels.
export function drawSigned(canvas, bytes) {
  paint(canvas, bytes.length, (at) => signed[bytes[at]]);
}

// Draw the output of a network: one map of bytes, or one per class.
export function drawOutput(canvas, bytes, cells, task, discrete) {
  const n = cells * cells;
  const k = bytes.length / n;
  if (k === 1) {
    const sure = discrete && task === "classification";
    paint(canvas, n, (at) => pale[sure ? 255 * (bytes[at] > 127) : bytes[at]]);
    return;
  }
  paint(canvas, n, (at) => {
    let best = 0;
    for (let c = 1; c < k; c++) if (bytes[c * n + at] > bytes[best * n + at]) best = c;
    if (discrete) return word(mixed(theme.neutral, classes[best], theme.pale));
    const color = [0, 0, 0];
    let sum = 1e-9;
    for (let c = 0; c < k; c++) {
      const share = bytes[c * n + at];
      sum += share;
      for (let i = 0; i < 3; i++) color[i] += share * classes[c][i];
    }
    const certain = Math.max(0, (bytes[best * n + at] / sum - 1 / k) / (1 - 1 / k));
    return word(mixed(theme.neutral, color.map((value) => value / sum), theme.pale * (0.2 + 0.8 * certain)));
  });
}

function paint(canvas, n, pixel) {
  const side = Math.round(Math.sqrt(n));
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  const words = new Uint32Array(image.data.buffer);
  for (let at = 0; at < n; at++) words[at] = pixel(at);
  context.putImageData(image, 0, 0);
}

// Fit a canvas to its box at the screen's resolution; return its context and size in CSS pixels.
export function fitted(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

choose();
