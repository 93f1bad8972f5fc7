// Features, hidden units and outputs, each with its map, and the weights between them.

import { css, drawOutput, drawSigned, fitted, theme } from "./colors.js";
import { element } from "./controls.js";

const CELLS = 32 * 32;
const OUTPUT_CELLS = 96;

export class NetworkView {
  // `on` has toggle(feature), resize(layer, by) and select(), which is called when another unit is looked at.
  constructor(fields, on) {
    this.features = Object.entries(fields.features.names);
    this.mostUnits = fields.hidden_layer_sizes.most_units;
    this.on = on;
    this.box = document.getElementById("net");
    this.edges = document.getElementById("edges");
    this.layers = document.getElementById("layers");
    this.selected = null; // {layer, unit}, layer 0 is the features
    new ResizeObserver(() => this.measure()).observe(this.box);
  }

  // Make the columns anew if the settings have others.
  build(settings, classes) {
    const shape = JSON.stringify([settings.features, settings.hidden_layer_sizes, classes]);
    if (shape === this.shape) return;
    const focused = document.activeElement?.dataset?.key;
    this.shape = shape;
    this.selected = null;
    this.canvases = []; // per layer, of the units that the network has
    const enabled = settings.features;
    const names = this.features.map(([name, label]) => this.feature(name, label, enabled));
    const columns = [element("div", { className: "layer" }, element("div", { className: "layer-head" }, "features"), ...names)];
    this.canvases.push(this.features.flatMap(([name], i) => (enabled.includes(name) ? [names[i].querySelector("canvas")] : [])));
    settings.hidden_layer_sizes.forEach((width, i) => columns.push(this.hidden(i, width)));
    const outputs = classes.length > 2 ? classes : [""];
    columns.push(this.column(element("div", { className: "layer-head" }, "output"), outputs.length, columns.length, (k) =>
      classes.length > 2 ? `Output for class ${classes[k]}` : "Output"));
    this.layers.replaceChildren(...columns);
    if (focused) this.layers.querySelector(`[data-key="${focused}"]`)?.focus();
    this.measure();
  }

  feature(name, label, enabled) {
    const at = enabled.indexOf(name);
    const button = element("button", { type: "button", className: "unit feature", "aria-pressed": String(at >= 0), "aria-label": `Feature ${label}` });
    button.dataset.key = `feature-${name}`;
    button.onclick = () => this.on.toggle(name);
    if (at >= 0) this.watch(button, 0, at);
    button.append(element("span", { className: "label" }, label), element("canvas", { width: 32, height: 32 }));
    return button;
  }

  hidden(i, width) {
    const button = (by, text, label) => {
      const made = element("button", { type: "button", className: "tiny", "aria-label": label }, text);
      made.dataset.key = `resize-${i}-${by}`;
      made.disabled = by < 0 ? width <= 1 : width >= this.mostUnits;
      made.onclick = () => this.on.resize(i, by);
      return made;
    };
    const head = element("div", { className: "layer-head" },
      element("span", { className: "count" }, `${width} unit${width > 1 ? "s" : ""}`),
      element("span", { className: "pair" },
        button(-1, "−", `Remove a unit from hidden layer ${i + 1}`),
        button(1, "+", `Add a unit to hidden layer ${i + 1}`)));
    return this.column(head, width, i + 1, (unit) => `Hidden layer ${i + 1}, unit ${unit + 1}`);
  }

  column(head, width, layer, name) {
    const units = Array.from({ length: width }, (_, unit) => {
      const button = element("button", { type: "button", className: "unit", "aria-label": name(unit) });
      button.dataset.key = `unit-${layer}-${unit}`;
      button.append(element("canvas", { width: 32, height: 32 }));
      this.watch(button, layer, unit);
      return button;
    });
    this.canvases.push(units.map((unit) => unit.firstChild));
    return element("div", { className: "layer" }, head, ...units);
  }

  watch(button, layer, unit) {
    const select = () => this.select({ layer, unit, name: button.getAttribute("aria-label") });
    button.addEventListener("pointerenter", select);
    button.addEventListener("focus", select);
    button.addEventListener("pointerleave", () => document.activeElement !== button && this.select(null));
    button.addEventListener("blur", () => this.select(null));
  }

  select(selected) {
    this.selected = selected;
    this.on.select();
  }

  // Note where the units are.
  measure() {
    if (!this.canvases) return;
    const box = this.box.getBoundingClientRect();
    this.places = this.canvases.map((layer) =>
      layer.map((canvas) => {
        const { left, right, top, bottom } = canvas.getBoundingClientRect();
        return { left: left - box.left, right: right - box.left, y: (top + bottom) / 2 - box.top };
      }));
    this.on.select();
  }

  // The bytes of the selected unit's map; null for none, and for outputs.
  map(scene, view, settings) {
    if (!this.selected) return null;
    const { layer, unit } = this.selected;
    if (layer === 0) return this.input(scene, settings, unit);
    if (layer === view.widths.length - 1) return null;
    return this.unit(view, layer, unit);
  }

  input(scene, settings, i) {
    const at = this.features.findIndex(([name]) => name === settings.features[i]);
    return scene.inputs.subarray(at * CELLS, (at + 1) * CELLS);
  }

  unit(view, layer, unit) {
    const before = view.widths.slice(1, layer).reduce((sum, width) => sum + width, 0);
    return view.units.subarray((before + unit) * CELLS, (before + unit + 1) * CELLS);
  }

  fits({ widths }) {
    return widths.length === this.canvases.length && widths.every((width, i) => width === this.canvases[i].length);
  }

  drawInputs(scene) {
    const all = this.layers.firstChild.querySelectorAll("canvas");
    all.forEach((canvas, i) => drawSigned(canvas, scene.inputs.subarray(i * CELLS, (i + 1) * CELLS)));
  }

  draw(scene, view) {
    const last = view.widths.length - 1;
    for (let layer = 1; layer < last; layer++) {
      this.canvases[layer].forEach((canvas, unit) => drawSigned(canvas, this.unit(view, layer, unit)));
    }
    const n = OUTPUT_CELLS * OUTPUT_CELLS;
    this.canvases[last].forEach((canvas, k) => {
      drawOutput(canvas, view.output.subarray(k * n, (k + 1) * n), OUTPUT_CELLS, scene.task, false);
    });
    this.drawEdges(view);
  }

  drawEdges(view) {
    const { context } = fitted(this.edges);
    context.lineCap = "round";
    let at = 0;
    for (let layer = 0; layer + 1 < view.widths.length; layer++) {
      const [n, m] = [view.widths[layer], view.widths[layer + 1]];
      const weights = view.weights.subarray(at, at + n * m);
      at += n * m;
      let largest = 1e-9;
      for (const w of weights) if (Math.abs(w) > largest) largest = Math.abs(w);
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < m; j++) this.edge(context, layer, i, j, weights[i * m + j] / largest);
      }
    }
  }

  edge(context, layer, i, j, share) {
    const [from, to] = [this.places[layer]?.[i], this.places[layer + 1]?.[j]];
    const strength = Math.abs(share);
    if (!from || !to || !(strength > 0.02)) return;
    const of = this.selected;
    const touches = of && ((of.layer === layer && of.unit === i) || (of.layer === layer + 1 && of.unit === j));
    const alpha = (0.12 + 0.78 * strength) * (of && !touches ? 0.12 : 1);
    context.strokeStyle = css(share < 0 ? theme.negative : theme.positive, alpha);
    context.lineWidth = 0.5 + 3.7 * strength;
    const bend = (to.left - from.right) * 0.5;
    context.beginPath();
    context.moveTo(from.right, from.y);
    context.bezierCurveTo(from.right + bend, from.y, to.left - bend, to.y, to.left, to.y);
    context.stroke();
  }

  // A sentence about the selected unit.
  detail(view) {
    if (!this.selected) return null;
    const { layer, unit, name } = this.selected;
    if (layer === 0) return `${name}, an input of the network.`;
    const { widths, weights, biases, scales } = view;
    const before = (upto) => widths.slice(0, upto).reduce((sum, width, i) => sum + width * widths[i + 1], 0);
    const start = before(layer - 1);
    const into = Array.from({ length: widths[layer - 1] }, (_, i) => weights[start + i * widths[layer] + unit]);
    const first = widths.slice(1, layer).reduce((sum, width) => sum + width, 0);
    const range = layer < widths.length - 1 ? `; its colours reach ±${scales[first + unit].toPrecision(2)}` : "";
    return `${name}: bias ${signed(biases[first + unit])}, weights ${into.map(signed).join(", ")}${range}.`;
  }
}

const signed = (value) => value.toFixed(2).replace("-", "−");
