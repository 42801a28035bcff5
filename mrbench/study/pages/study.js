// The flow of a reading: who reads, which trial is on screen, ratings on their way to the disk.

import { Picture, Screen, View } from "./view.js";

const RETRY = 1500; // milliseconds between attempts while the server does not answer
const byId = (id) => document.getElementById(id);
const element = (tag, className = "", text = "") => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
};
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** An answer that says no, and why. Anything else that fails is a server that does not answer. */
class Refused extends Error {}

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), cache: "no-store",
  });
  const document = await answer.json();
  if (!answer.ok) throw new Refused(document.error);
  return document;
}

let study = null; // what the server said at the start
let position = 0; // of the trial on screen
let rows = []; // one per criterion and rated image of the trial: {code, criterion, element, buttons, mark}
let active = 0; // index of the marked row
let ready = false; // all pictures of the trial are on screen
let leaving = false; // to the next trial, once everything is saved
const saved = new Map(); // "code criterion" -> value on the disk
const chosen = new Map(); // the same, with what is on its way
const queue = []; // ratings on their way
let sending = false;
let screens = [];
const pictures = new Map(); // code -> promise of a Picture
const view = new View(() => redraw());

const place = (code, criterion) => `${code} ${criterion}`;
const trialIsRated = (trial) => trial.images.every((code) => study.criteria.every((c) => saved.has(place(code, c))));

// -- beginning ---------------------------------------------------------------------------------------------------------
async function begin(event) {
  event.preventDefault();
  const name = byId("name").value;
  const create = !byId("unknown").hidden && byId("unknown-name").dataset.typed === name;
  try {
    const answer = await post("api/start", { reader: name, create });
    tell("");
    if (!answer.known) {
      byId("unknown-name").textContent = answer.reader;
      byId("unknown-name").dataset.typed = name;
      byId("unknown").hidden = false;
      byId("begin").textContent = "Begin as a new reader";
      return;
    }
    enter(answer);
  } catch (error) {
    tell(error instanceof Refused ? error.message : "The server does not answer. Is it running?");
  }
}

function nameChanged() {
  byId("unknown").hidden = true;
  byId("begin").textContent = "Continue";
}

function enter(answer) {
  study = answer;
  for (const [code, given] of Object.entries(answer.ratings)) {
    for (const [criterion, value] of Object.entries(given)) {
      saved.set(place(code, criterion), value);
      chosen.set(place(code, criterion), value);
    }
  }
  byId("reader").textContent = answer.reader;
  const [low, high] = answer.scale;
  byId("scale-text").textContent = `${low} = ${answer.anchors[0]}, ${high} = ${answer.anchors[1]}`;
  byId("help-low").textContent = low;
  byId("help-high").textContent = high;
  byId("help-anchors").textContent = byId("scale-text").textContent;
  const first = study.trials.findIndex((t) => !trialIsRated(t));
  if (first < 0) finish();
  else show(first);
  if (saved.size === 0) byId("help").showModal();
}

function only(id) {
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== id;
}

// -- a trial -----------------------------------------------------------------------------------------------------------
async function show(index) {
  [position, ready, leaving] = [index, false, false];
  only("reading");
  tell("");
  const trial = study.trials[index];
  const codes = trial.reference ? [trial.reference, ...trial.images] : trial.images;
  [rows, screens] = [[], []];
  const captions = trial.images.length > 1 ? ["A", "B"] : codes.length > 1 ? ["To rate"] : [""];
  byId("panels").replaceChildren(...codes.map((code) => {
    const reference = code === trial.reference;
    return panel(code, reference ? "Reference (ground truth)" : captions[trial.images.indexOf(code)], reference);
  }));
  progress();
  view.reset(study.images[trial.images[0]]);
  const missing = rows.findIndex((r) => !saved.has(place(r.code, r.criterion)));
  mark(missing < 0 ? 0 : missing);
  await Promise.all(codes.map((code, i) => load(code, screens[i], index)));
  if (index !== position) return;
  ready = true;
  say();
  prefetch(index);
}

function panel(code, caption, reference) {
  const made = element("div", "panel");
  if (caption) made.append(element("h2", "", caption));
  const stage = element("div", "stage");
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", caption || "Image to rate");
  stage.append(canvas, element("p", "soft", "loading"));
  made.append(stage);
  screens.push(new Screen(canvas, view));
  const list = element("div", "rows");
  for (const criterion of study.criteria) list.append(reference ? blank() : row(code, criterion, caption));
  made.append(list);
  return made;
}

/** As high as a row, so that all images of a trial are shown at one size. */
function blank() {
  const made = element("div", "row blank");
  made.append(element("button"));
  made.firstChild.disabled = true;
  made.setAttribute("aria-hidden", "true");
  return made;
}

function row(code, criterion, caption) {
  const index = rows.length;
  const made = element("div", "row");
  made.tabIndex = 0;
  made.setAttribute("role", "radiogroup");
  made.setAttribute("aria-label", caption.length === 1 ? `${criterion} of ${caption}` : criterion);
  made.append(element("span", "name", criterion));
  const buttons = new Map();
  for (let value = study.scale[0]; value <= study.scale[1]; value += 1) {
    const button = element("button", "", String(value));
    button.type = "button";
    button.tabIndex = -1;
    button.setAttribute("role", "radio");
    button.addEventListener("click", () => { mark(index); rate(index, value); });
    buttons.set(value, button);
    made.append(button);
  }
  const sign = element("span", "mark");
  made.append(sign);
  made.addEventListener("focus", () => mark(index, false));
  rows.push({ code, criterion, element: made, buttons, mark: sign });
  paint(index);
  return made;
}

function paint(index) {
  const { code, criterion, element: made, buttons, mark: sign } = rows[index];
  const [value, kept] = [chosen.get(place(code, criterion)), saved.get(place(code, criterion))];
  for (const [number, button] of buttons) button.setAttribute("aria-checked", String(number === value));
  const waiting = value !== kept;
  made.classList.toggle("wait", waiting);
  if (value !== undefined) made.classList.remove("missing");
  sign.textContent = waiting ? "…" : kept === undefined ? "" : "✓";
  sign.title = waiting ? "on its way" : kept === undefined ? "" : "saved";
}

function mark(index, focus = true) {
  active = index;
  rows.forEach((r, i) => r.element.classList.toggle("active", i === index));
  if (focus) rows[index].element.focus({ preventScroll: false });
}

async function load(code, screen, index) {
  const note = screen.canvas.nextSibling;
  while (index === position) {
    try {
      screen.picture = await picture(code);
      note.hidden = true;
      screen.draw();
      return;
    } catch (error) {
      pictures.delete(code);
      note.textContent = `The image cannot be loaded (${error instanceof Refused ? error.message : "the server does not answer"}). Trying again.`;
      await wait(RETRY);
    }
  }
}

function picture(code) {
  if (!pictures.has(code)) {
    pictures.set(code, (async () => {
      const answer = await fetch(`images/${code}`, { cache: "no-store" });
      if (!answer.ok) throw new Refused((await answer.json()).error);
      return new Picture(study.images[code], await answer.arrayBuffer());
    })());
  }
  return pictures.get(code);
}

/** Fetch what comes next, and forget what lies further away. */
function prefetch(index) {
  const near = study.trials.slice(Math.max(0, index - 1), index + 3).flatMap((t) => [...t.images, t.reference]);
  for (const code of pictures.keys()) if (!near.includes(code)) pictures.delete(code);
  for (const code of near) if (code) picture(code).catch(() => pictures.delete(code));
}

function redraw() {
  for (const screen of screens) screen.draw();
  byId("view-text").textContent = view.text;
}

// -- ratings -----------------------------------------------------------------------------------------------------------
function rate(index, value) {
  if (!ready) return;
  const { code, criterion } = rows[index];
  chosen.set(place(code, criterion), value);
  queue.push({ code, criterion, value, trial: study.trials[position].id });
  tell("");
  repaint(code, criterion);
  send();
}

async function send() {
  if (sending) return;
  sending = true;
  while (queue.length) {
    const { code, criterion, value, trial } = queue[0];
    try {
      await post("api/rate", { reader: study.reader, trial, image: code, criterion, value });
      saved.set(place(code, criterion), value);
      queue.shift();
      if (byId("alert").dataset.offline) tell("");
    } catch (error) {
      if (error instanceof Refused) {
        queue.shift();
        leaving = false;
        if (!queue.some((q) => q.code === code && q.criterion === criterion)) {
          if (saved.has(place(code, criterion))) chosen.set(place(code, criterion), saved.get(place(code, criterion)));
          else chosen.delete(place(code, criterion));
        }
        tell(`Not saved: ${error.message}`);
      } else {
        tell("Not saved yet: the server does not answer. Leave the page open; it is tried again.", true);
        await wait(RETRY);
      }
    }
    repaint(code, criterion);
  }
  sending = false;
  if (leaving) forward();
}

function repaint(code, criterion) {
  const index = rows.findIndex((r) => r.code === code && r.criterion === criterion);
  if (index >= 0) paint(index);
  progress();
  say();
}

// -- going on ----------------------------------------------------------------------------------------------------------
function next() {
  const missing = rows.findIndex((r) => !chosen.has(place(r.code, r.criterion)));
  if (missing >= 0) {
    rows[missing].element.classList.add("missing");
    tell(`${rows[missing].element.getAttribute("aria-label")} is not rated yet.`);
    mark(missing);
    return;
  }
  if (queue.length) leaving = true; // and go on when it is empty
  else forward();
}

function forward() {
  leaving = false;
  if (position + 1 < study.trials.length) show(position + 1);
  else finish();
}

function back() {
  if (position > 0 && !queue.length) show(position - 1);
}

function finish() {
  position = -1;
  only("done");
  tell("");
  const left = study.trials.filter((t) => !trialIsRated(t)).length;
  byId("done-title").textContent = left ? "Nearly done" : "Thank you";
  const all = study.trials.length;
  byId("done-text").textContent = left
    ? `${left} of ${all} ${left === 1 ? "is" : "are"} not rated yet.`
    : `All ${all} are rated, and every rating is saved. You can close the page.`;
  byId("done-missing").hidden = !left;
  (left ? byId("done-missing") : byId("done-review")).focus();
}

function progress() {
  const all = study.trials.length;
  const rated = study.trials.filter(trialIsRated).length;
  byId("progress").max = all;
  byId("progress").value = rated;
  byId("progress-text").textContent = `${position + 1} of ${all}, ${rated} rated`;
  byId("back").disabled = position === 0;
}

function say() {
  const state = byId("state");
  const trial = study.trials[position];
  state.className = queue.length ? "wait" : "";
  state.textContent = queue.length ? "saving" : trial && trialIsRated(trial) ? "saved; Enter goes on" : "";
}

function tell(message, offline = false) {
  const alert = byId("alert");
  alert.textContent = message;
  alert.hidden = !message;
  if (offline) alert.dataset.offline = "1";
  else delete alert.dataset.offline;
}

// -- keys --------------------------------------------------------------------------------------------------------------
const step = (change) => mark((active + change + rows.length) % rows.length);
const KEYS = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  Backspace: back,
  "+": () => view.scale(1.25),
  "=": () => view.scale(1.25),
  "-": () => view.scale(0.8),
  w: () => view.move(0, -0.1 / view.zoom),
  s: () => view.move(0, 0.1 / view.zoom),
  a: () => view.move(-0.1 / view.zoom, 0),
  d: () => view.move(0.1 / view.zoom, 0),
  "[": () => view.window(0.9, 0),
  "]": () => view.window(1 / 0.9, 0),
  ",": () => view.window(1, 0.02),
  ".": () => view.window(1, -0.02),
  i: () => view.toggle(),
  r: () => view.reset(view.first),
  h: () => byId("help").showModal(),
  "?": () => byId("help").showModal(),
};

function key(event) {
  if (byId("reading").hidden || byId("help").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const value = /^[0-9]$/.test(event.key) ? Number(event.key) : NaN;
  const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.key === "Enter") {
    if (event.target instanceof HTMLButtonElement && event.target.id !== "next") return; // the button's own work
    event.preventDefault();
    if (!event.repeat) next();
  } else if (value >= study.scale[0] && value <= study.scale[1]) {
    event.preventDefault();
    if (!event.repeat) rate(active, value);
  } else if (Object.hasOwn(KEYS, pressed)) {
    event.preventDefault();
    KEYS[pressed]();
  }
}

byId("who").addEventListener("submit", begin);
byId("name").addEventListener("input", nameChanged);
byId("next").addEventListener("click", next);
byId("back").addEventListener("click", back);
byId("zoom-in").addEventListener("click", () => view.scale(1.25));
byId("zoom-out").addEventListener("click", () => view.scale(0.8));
byId("reset").addEventListener("click", () => view.reset(view.first));
byId("help-button").addEventListener("click", () => byId("help").showModal());
byId("help").addEventListener("close", () => { if (rows.length) mark(active); });
byId("done-missing").addEventListener("click", () => show(study.trials.findIndex((t) => !trialIsRated(t))));
byId("done-review").addEventListener("click", () => show(0));
document.addEventListener("keydown", key);
window.addEventListener("resize", redraw);
window.addEventListener("beforeunload", (event) => { if (queue.length) event.preventDefault(); });
only("welcome");
byId("name").focus();
