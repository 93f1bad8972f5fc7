// Lines over the epochs.

import { fitted, theme } from "./colors.js";

const MOST = 600;
const LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 20;

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.log = false;
    this.clear();
  }

  clear() {
    this.epochs = [];
    this.rows = [];
    this.every = 1;
    this.seen = 0;
  }

  // Add the values of an epoch; of a long training, every second, fourth, ... is kept.
  add(epoch, values) {
    if (this.epochs.length && epoch <= this.epochs.at(-1)) return;
    if (this.seen++ % this.every) return;
    this.epochs.push(epoch);
    this.rows.push(values);
    if (this.epochs.length > MOST) {
      this.epochs = this.epochs.filter((_, i) => i % 2 === 0);
      this.rows = this.rows.filter((_, i) => i % 2 === 0);
      this.every *= 2;
    }
  }

  draw(colors) {
    const { context, width, height } = fitted(this.canvas);
    const shown = (value) => value !== null && (!this.log || value > 0);
    const values = this.rows.flat().filter(shown);
    let low = this.log ? Math.min(...values) : 0;
    let high = Math.max(...values);
    if (!values.length) [low, high] = this.log ? [0.1, 1] : [0, 1];
    if (this.log) [low, high] = [Math.max(low, high * 1e-9), Math.max(high, low * 1.01)];
    else high = high || 1;
    const scale = this.log ? Math.log10 : (value) => value;
    const [bottom, top] = [scale(low), scale(high) + (this.log ? 0.05 : high * 0.05)];
    const last = Math.max(this.epochs.at(-1) ?? 0, 10);
    const x = (epoch) => LEFT + (epoch / last) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - ((scale(value) - bottom) / (top - bottom || 1)) * (height - TOP - BOTTOM);

    context.font = "11px system-ui, sans-serif";
    context.fillStyle = theme.quiet;
    context.strokeStyle = theme.faint;
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of ticks(low, high, this.log)) {
      const at = Math.round(y(tick)) + 0.5;
      if (at < TOP - 2 || at > height - BOTTOM + 2) continue;
      line(context, [[LEFT, at], [width - RIGHT, at]]);
      context.fillText(label(tick), LEFT - 6, at);
    }
    context.textBaseline = "top";
    context.textAlign = "left";
    context.fillText("0", LEFT, height - BOTTOM + 5);
    context.textAlign = "right";
    context.fillText(`epoch ${last.toLocaleString("en")}`, width - RIGHT, height - BOTTOM + 5);

    context.lineWidth = 1.8;
    context.lineJoin = "round";
    colors.forEach((color, series) => {
      context.strokeStyle = color;
      const points = [];
      this.rows.forEach((row, i) => {
        if (series < row.length && shown(row[series])) points.push([x(this.epochs[i]), y(row[series])]);
      });
      line(context, points);
    });
  }
}

function line(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function ticks(low, high, log) {
  if (log) {
    const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    const step = Math.max(1, Math.ceil((last - first) / 4));
    const found = [];
    for (let power = first; power <= last; power += step) found.push(10 ** power);
    return found.length ? found : [low, high];
  }
  const rough = high / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * unit).find((candidate) => candidate >= rough);
  return [0, 1, 2, 3, 4].map((i) => i * step).filter((tick) => tick <= high * 1.05);
}

const label = (value) =>
  value === 0 ? "0" : value >= 1e4 || value < 1e-3 ? value.toExponential(0) : String(+value.toPrecision(2));
