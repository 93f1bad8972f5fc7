// The page: what the user does goes to the session, what the session shows is drawn.
//
// Training is asked for, update by update: the next when the last is there and the browser is about to draw.  So the
// server does nothing for a page that is paused, hidden or slow.

import { fromAddress, toAddress } from "./address.js";
import { Chart } from "./chart.js";
import { classes as classColors, css, layers as layerColors, onTheme, theme } from "./colors.js";
import { Connection } from "./connection.js";
import { Controls, element } from "./controls.js";
import { NetworkView } from "./network.js";
import { Plane } from "./plane.js";

const SPEEDS = [1, 2, 5, 10, 20, 50, 100];
const $ = (id) => document.getElementById(id);

const state = {
  fields: null, // what may be set
  settings: null, // what the server has
  pending: {}, // changes of the user that have not been sent, or not been answered
  sent: false, // whether an answer to settings is awaited
  scene: null,
  view: null,
  playing: false,
  awaited: 0, // answers to "advance" that are under way
  updates: [], // times of the latest updates
  announce: "", // what to say of the result once it is there
};

const plane = new Plane($("map"), $("points"));
const losses = new Chart($("losses"));
const gradients = new Chart($("gradients"));
gradients.log = true;
let controls, network, connection, frame;

// --- the session -----------------------------------------------------------------------------------------------------

const on = {
  open() {
    alert("");
    connection.send("hello", { settings: state.settings ?? fromAddress() });
    state.sent = true;
  },
  closed(code) {
    pause();
    state.sent = false;
    state.awaited = 0;
    const why = code === 4001
      ? "Too many pages of this playground are open: close one."
      : "The playground has ended. Start it again, then connect.";
    alert(why, "Connect", connect);
  },
  hello(message) {
    if (controls) return; // connected again
    state.fields = message.fields;
    controls = new Controls(message, change);
    network = new NetworkView(message.fields, { toggle, resize, select: redraw });
  },
  settings({ settings, problems, isNew, code }) {
    state.sent = false;
    state.settings = settings;
    if (isNew) {
      losses.clear();
      gradients.clear();
    }
    controls.show(settings, state.pending);
    const left = controls.problems(problems);
    alert(left.join(" "));
    $("code").textContent = code;
    const n = settings.hidden_layer_sizes.length;
    $("layer-count").textContent = `${n} hidden layer${n === 1 ? "" : "s"}`;
    $("fewer-layers").disabled = n === 0;
    $("more-layers").disabled = n >= state.fields.hidden_layer_sizes.most_layers;
    toAddress(settings, state.fields);
    if (Object.keys(problems).length) say(`Not changed. ${Object.entries(problems).flat().join(" ")}`);
    sendChanges();
  },
  scene(scene) {
    state.scene = scene;
    network.build(state.settings, scene.classes);
    network.drawInputs(scene);
    plane.drawPoints(scene);
    $("discrete").parentElement.hidden = scene.task !== "classification";
    $("score-name").textContent = scene.task === "classification" ? "Test accuracy" : "Test R²";
    [$("x-axis").textContent, $("y-axis").textContent] = scene.axes;
    legends();
  },
  view(view) {
    if (state.awaited) state.awaited--;
    state.view = view;
    losses.add(view.epoch, [view.train.loss, view.test.loss]);
    if (view.gradients.every((value) => value !== null)) gradients.add(view.epoch, view.gradients);
    if (state.playing) state.updates.push(performance.now());
    if (view.problem) {
      pause();
      alert(view.problem, "Reset", () => connection.send("reset"));
    }
    redraw();
  },
  code({ code }) {
    $("code").textContent = code;
  },
  error(message) {
    alert(message.text);
  },
};

function connect() {
  connection = new Connection(on);
}

// Send what the user has changed, one message at a time.
function sendChanges() {
  if (state.sent || !Object.keys(state.pending).length) return;
  state.sent = true;
  connection.send("settings", { settings: state.pending });
  state.pending = {};
}

function change(name, value) {
  state.pending[name] = value;
  sendChanges();
}

function advance() {
  if (state.awaited || !connection) return;
  state.awaited++;
  connection.send("advance", { epochs: SPEEDS[$("speed").value] });
}

// --- what the user does ----------------------------------------------------------------------------------------------

const hidden = () => state.pending.hidden_layer_sizes ?? state.settings.hidden_layer_sizes;

function resize(layer, by) {
  change("hidden_layer_sizes", hidden().map((width, i) => (i === layer ? width + by : width)));
}

function toggle(feature) {
  const now = state.pending.features ?? state.settings.features;
  change("features", now.includes(feature) ? now.filter((name) => name !== feature) : [...now, feature]);
}

function play() {
  state.playing = true;
  state.updates = [];
  $("play").setAttribute("aria-pressed", "true");
  $("play").setAttribute("aria-label", "Pause");
  document.body.classList.add("playing");
  say("Training.");
  advance();
}

function pause() {
  if (!state.playing) return;
  state.playing = false;
  $("play").setAttribute("aria-pressed", "false");
  $("play").setAttribute("aria-label", "Play");
  document.body.classList.remove("playing");
  connection.send("code");
  state.announce = "Paused";
  redraw();
}

function showSpeed() {
  const n = SPEEDS[$("speed").value];
  const words = `${n} epoch${n > 1 ? "s" : ""} per update`;
  $("speed-value").textContent = words;
  $("speed").setAttribute("aria-valuetext", words);
}

async function copy(textToCopy, what) {
  try {
    await navigator.clipboard.writeText(textToCopy);
    say(`${what} copied.`);
  } catch {
    say(`The browser does not let the page copy. ${what}: ${textToCopy}`);
  }
}

function listen() {
  $("play").onclick = () => (state.playing ? pause() : play());
  $("step").onclick = () => {
    pause();
    connection.send("advance", { epochs: 1 });
    state.awaited++;
    state.announce = "One step";
  };
  $("reset").onclick = () => {
    connection.send("reset");
    say("The network begins anew.");
  };
  $("dice").onclick = () => change("random_state", Math.floor(Math.random() * 1e6));
  $("speed").oninput = showSpeed;
  $("fewer-layers").onclick = () => change("hidden_layer_sizes", hidden().slice(0, -1));
  $("more-layers").onclick = () => change("hidden_layer_sizes", [...hidden(), hidden().at(-1) ?? 4]);
  $("show-test").onchange = ({ target }) => {
    plane.showTest = target.checked;
    plane.drawPoints(state.scene);
  };
  $("discrete").onchange = ({ target }) => {
    plane.discrete = target.checked;
    redraw();
  };
  $("log-loss").onchange = ({ target }) => {
    losses.log = target.checked;
    redraw();
  };
  $("share").onclick = () => copy(location.href, "Link");
  $("show-code").onclick = () => {
    connection.send("code");
    $("code-dialog").showModal();
  };
  $("close-code").onclick = () => $("code-dialog").close();
  $("copy-code").onclick = () => copy($("code").textContent, "Code");
  addEventListener("hashchange", () => {
    const defaults = Object.fromEntries(Object.entries(state.fields).map(([name, field]) => [name, field.default]));
    Object.assign(state.pending, defaults, fromAddress());
    sendChanges();
  });
  addEventListener("resize", () => drawStill());
  onTheme(() => drawStill());
}

// --- drawing ---------------------------------------------------------------------------------------------------------

function redraw() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    if (state.playing) advance(); // trained while this is drawn
    draw();
  });
}

function drawStill() {
  if (!state.scene) return;
  controls.drawPictures();
  network.drawInputs(state.scene);
  plane.drawPoints(state.scene);
  legends();
  redraw();
}

function draw() {
  const { scene, view } = state;
  if (!scene || !view || !network.fits(view)) return; // the view of another network, its successor is under way
  network.draw(scene, view);
  plane.draw(scene, view, network.map(scene, view, state.settings));
  losses.draw([theme.ink, css(theme.negative)]);
  gradients.draw(layerColors);
  figures(scene, view);
  document.documentElement.dataset.drawn = "true";
}

function figures(scene, view) {
  const loss = (value) => (value === null ? "∞" : value.toFixed(3));
  const score = (value) => (value === null ? "–" : scene.task === "regression" ? value.toFixed(3) : `${(100 * value).toFixed(1)} %`);
  $("epoch").textContent = view.epoch.toLocaleString("en");
  $("train-loss").textContent = loss(view.train.loss);
  $("test-loss").textContent = loss(view.test.loss);
  $("test-score").textContent = score(view.test.score);
  $("present-rate").textContent = view.rate === null ? "–" : String(+view.rate.toPrecision(3));
  const now = performance.now();
  state.updates = state.updates.filter((time) => now - time < 2000);
  const span = now - state.updates[0];
  $("rate").textContent = state.playing && state.updates.length > 5 ? Math.round(((state.updates.length - 1) / span) * 1000) : "–";
  $("detail").textContent = network.detail(view) ?? HINT;
  $("output-title").textContent = network.selected && network.map(scene, view, state.settings) ? network.selected.name : "Output";
  if (state.announce && !state.awaited) {
    sayResult(state.announce);
    state.announce = "";
  }
}

const HINT = $("detail").textContent;

function legends() {
  const { scene } = state;
  const key = (color, name) => {
    const swatch = element("i", { className: "key" });
    swatch.style.background = color;
    return element("span", {}, swatch, name);
  };
  const names = scene.classes.length
    ? scene.classes.map((name, i) => key(css(classColors[i]), `class ${name}`))
    : [key(css(theme.negative), scene.range[0].toPrecision(2)), key(css(theme.neutral), "0"), key(css(theme.positive), scene.range[1].toPrecision(2))];
  $("legend").replaceChildren(...names);
  const n = state.settings.hidden_layer_sizes.length + 1;
  const layers = Array.from({ length: n }, (_, i) => key(layerColors[i], i === n - 1 ? "output" : `layer ${i + 1}`));
  $("gradient-legend").replaceChildren(...layers);
}

// --- words -----------------------------------------------------------------------------------------------------------

function say(words) {
  $("status").textContent = words;
}

function sayResult(what) {
  const { scene, view } = state;
  if (!view) return;
  const accuracy = view.test.score === null ? "" : scene.task === "classification"
    ? `, test accuracy ${(100 * view.test.score).toFixed(1)} %` : `, test R² ${view.test.score.toFixed(3)}`;
  const loss = view.train.loss === null ? "infinite" : view.train.loss.toFixed(3);
  say(`${what}. Epoch ${view.epoch}, training loss ${loss}${accuracy}.`);
  $("points").setAttribute("aria-label", `Output of the network over the plane, with the points${accuracy}`);
}

function alert(words, action, call) {
  const box = $("alert");
  box.hidden = !words;
  box.replaceChildren(words);
  if (words && action) {
    const button = element("button", { type: "button", className: "plain" }, action);
    button.onclick = call;
    box.append(button);
  }
}

listen();
showSpeed();
connect();
