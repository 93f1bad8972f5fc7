// The controls of the settings, made from what the server says of each field.

import { css, fitted, targetColor } from "./colors.js";
import { text } from "./address.js";

// Fields that the network shows.
const ELSEWHERE = ["dataset", "features", "hidden_layer_sizes"];

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export class Controls {
  // `change(name, value)` is called for every change by the user.
  constructor({ fields, tasks, pictures }, change) {
    this.fields = fields;
    this.change = change;
    this.inputs = {};
    this.outputs = {};
    for (const [name, field] of Object.entries(fields)) {
      if (!ELSEWHERE.includes(name)) document.getElementById(`group-${field.group}`).append(this.control(name, field));
    }
    this.tasks = tasks;
    this.pictures = pictures;
    this.dataSets();
  }

  control(name, field) {
    const input = this.input(name, field);
    input.id = `control-${name}`;
    input.setAttribute("aria-describedby", `problem-${name}`);
    this.inputs[name] = input;
    const label = element("label", { htmlFor: input.id, title: field.help }, field.label);
    const head = element("div", { className: "head" }, label);
    if (input.type === "range") {
      this.outputs[name] = element("span", { className: "value", "aria-hidden": "true" }); // the slider tells its text
      head.append(this.outputs[name]);
    }
    const problem = element("p", { id: `problem-${name}`, className: "problem", hidden: true });
    return element("div", { className: "control", id: `field-${name}` }, head, input, problem);
  }

  input(name, field) {
    if (field.kind === "choice") {
      const options = Object.entries(field.names).map(([value, label]) => new Option(label, value));
      const select = element("select", {}, ...options);
      select.onchange = () => this.change(name, select.value);
      return select;
    }
    if (name === "random_state") {
      const number = element("input", { type: "number", min: field.low, max: field.high, step: 1 });
      number.onchange = () => this.change(name, number.value);
      return number;
    }
    const stops = field.stops.length;
    const range = stops ? { min: 0, max: stops - 1, step: 1 } : { min: field.low, max: field.high, step: field.step };
    const slider = element("input", { type: "range", ...range });
    slider.oninput = () => {
      const value = stops ? field.stops[slider.valueAsNumber] : slider.valueAsNumber;
      this.tell(name, value);
      this.change(name, value);
    };
    return slider;
  }

  tell(name, value) {
    const shown = name === "train_share" ? `${Math.round(100 * value)} %` : String(+value.toPrecision(4));
    this.outputs[name].textContent = shown;
    this.inputs[name].setAttribute("aria-valuetext", shown);
  }

  // Show the settings of the server, but for those that the user is changing.
  show(settings, except) {
    const task = this.tasks[settings.dataset];
    for (const [name, input] of Object.entries(this.inputs)) {
      const field = this.fields[name];
      document.getElementById(`field-${name}`).hidden = Boolean(field.task) && field.task !== task;
      if (name in except) continue;
      const value = settings[name];
      if (input.type === "range") {
        input.value = field.stops.length ? nearest(field.stops, value) : value;
        this.tell(name, value);
      } else if (input.value !== text(value)) input.value = text(value);
    }
    if (!("dataset" in except)) document.getElementById(`data-${settings.dataset}`).checked = true;
  }

  // Show what is wrong with some settings; return the problems that have no place.
  problems(found) {
    for (const shown of document.querySelectorAll(".problem[id]")) shown.hidden = true;
    for (const input of Object.values(this.inputs)) input.removeAttribute("aria-invalid");
    const left = [];
    for (const [name, problem] of Object.entries(found)) {
      const place = document.getElementById(`problem-${name}`);
      if (!place || place.closest("[hidden].control")) {
        left.push(name ? `${name}: ${problem}` : problem);
        continue;
      }
      place.textContent = problem;
      place.hidden = false;
      this.inputs[name]?.setAttribute("aria-invalid", "true");
    }
    return left;
  }

  dataSets() {
    const group = document.getElementById("data-sets");
    for (const [name, label] of Object.entries(this.fields.dataset.names)) {
      const radio = element("input", { type: "radio", name: "dataset", id: `data-${name}`, value: name });
      radio.onchange = () => this.change("dataset", name);
      const canvas = element("canvas", { "aria-hidden": "true" });
      group.append(element("label", { className: "data-set" }, radio, canvas, element("span", {}, label)));
    }
    group.append(element("p", { id: "problem-dataset", className: "problem", hidden: true }));
    this.drawPictures();
  }

  drawPictures() {
    for (const [name, { points, targets }] of Object.entries(this.pictures)) {
      const canvas = document.getElementById(`data-${name}`).nextElementSibling;
      const { context, width, height } = fitted(canvas);
      const largest = Math.max(...targets.map(Math.abs));
      points.forEach(([x1, x2], i) => {
        context.fillStyle = css(targetColor(targets[i], this.tasks[name], [-largest, largest]));
        context.beginPath();
        context.arc((x1 / 3.1 + 1) * 0.5 * width, (1 - x2 / 3.1) * 0.5 * height, 1.7, 0, 2 * Math.PI);
        context.fill();
      });
    }
  }
}

function nearest(stops, value) {
  let best = 0;
  stops.forEach((stop, i) => {
    if (Math.abs(stop - value) < Math.abs(stops[best] - value)) best = i;
  });
  return best;
}
