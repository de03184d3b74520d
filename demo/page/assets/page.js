// The page follows the demo's events, and its buttons send what they say.

import { Chart, ceiling } from "./chart.js";
import { count, fill } from "./text.js";
import { updateTimeline } from "./timeline.js";
import { updateWorkers } from "./workers.js";

const SIDES = ["left", "right"];
const [RIGHT, WRONG, ANSWERED, FAILED, MEDIAN, HIGH] = [0, 1, 2, 3, 4, 5];
const CHARTS = { rows: ["mirror", "wrong"], requests: ["mirror", "failed"], latency: ["line"] };
const EMPTY = [0, 0, 0, 0, null, null];
const status = document.getElementById("status");
const fleets = SIDES.map((side) => document.getElementById(side));
// Where others act on the servers, there are commands in their place.
const hasButtons = document.querySelector(".controls form") !== null;

let state = null;
let charts = null;

function follow() {
  const source = new EventSource(document.body.dataset.events);
  source.addEventListener("all", (event) => {
    state = JSON.parse(event.data);
    document.body.classList.remove("lost");
    begin();
  });
  source.addEventListener("tick", (event) => {
    const news = JSON.parse(event.data);
    news.sample.forEach((sample, index) => {
      state.samples[index].push(sample);
      state.samples[index].shift();
    });
    Object.assign(state, news);
    update();
  });
  source.addEventListener("end", () => {
    source.close();
    document.body.classList.add("ended");
    say("The demo has ended. Its table is in the terminal.");
  });
  source.addEventListener("error", () => {
    document.body.classList.add("lost");
    say("The demo does not answer; trying again.");
  });
}

function begin() {
  for (const samples of state.samples) {
    while (samples.length < state.length) samples.unshift(EMPTY);
  }
  charts ??= fleets.map((fleet) => Object.fromEntries(
    Object.entries(CHARTS).map(([name, [kind, wrong]]) => {
      const figure = fleet.querySelector(`[data-chart=${name}]`);
      return [name, new Chart(figure, kind, state.length, wrong)];
    })));
  fill(document, { route: state.route });
  explainClash();
  if (state.now !== undefined) update();
}

function update() {
  updateServers();
  if (hasButtons) updateButtons();
  updateStatus();
  fleets.forEach((fleet, index) => updateFleet(fleet, state.fleets[index], index));
  updateCharts();
  updateTimeline(document.querySelector(".history"), state);
}

// The same number for two types: what makes a stale OID dangerous.
function explainClash() {
  const [one, other] = state.servers;
  for (const [type, oid] of Object.entries(one.types)) {
    const twin = Object.keys(other.types).find((name) => name !== type && other.types[name] === oid);
    if (!twin) continue;
    for (const element of document.querySelectorAll(`.server [data-oid="${oid}"]`)) element.classList.add("shared");
    const text = document.getElementById("clash");
    const strong = document.createElement("b");
    strong.textContent = oid;
    text.replaceChildren(strong, ` is ${type} on ${one.release} and ${twin} on ${other.release}. `
      + "Whoever keeps the number over the switch reads the one as the other.");
  }
}

function updateServers() {
  state.servers.forEach((server, index) => {
    const card = document.getElementById(`server-${index}`);
    const serves = index === state.serving;
    card.classList.toggle("serves", serves);
    card.classList.toggle("follows", !serves);
    fill(card, { role: serves ? "serves both fleets" : "follows by replication" });
  });
}

function updateButtons() {
  const next = state.serving === 0 ? "cut-over" : "roll-back";
  for (const name of ["cut-over", "roll-back"]) {
    const button = document.getElementById(name);
    button.classList.toggle("next", name === next && !state.doing);
    button.setAttribute("aria-disabled", Boolean(state.doing) || name !== next);
  }
  document.getElementById("app").setAttribute("aria-disabled", Boolean(state.doing));
  document.getElementById("automatic").setAttribute("aria-pressed", state.due !== null);
  fill(document, {
    app: `left fleet: ${state.fleets[0].app ? "on" : "off"}`,
    due: state.due === null ? "off" : `on, next in ${Math.ceil(state.due)} s`,
  });
}

function updateStatus() {
  if (state.doing) say(`${state.doing} …`);
  else if (/^$| …$|fleets\.$/.test(status.textContent)) say(`PostgreSQL ${state.servers[state.serving].release} serves both fleets.`);
}

function updateFleet(fleet, { app, rows, wrong, undecoded, fault, workers }, index) {
  const [latest] = state.samples[index].slice(-1);
  const recent = state.samples[index].slice(-4);
  const rate = mean(recent, WRONG);
  const failing = mean(recent, FAILED);
  const goingWrong = rate + failing > 0 && wrong + undecoded > 0;
  fleet.querySelector("[data-is=line]").classList.toggle("off", !app);
  fleet.classList.toggle("has-wrong", wrong > 0);
  fleet.classList.toggle("going-wrong", goingWrong);
  fill(fleet, {
    title: app ? "With the app" : "Without the app",
    wrong: count(wrong),
    rows: count(rows),
    undecoded: count(undecoded),
    sign: goingWrong ? "✕" : "✓",
    verdict: verdict(rate, failing, wrong + undecoded),
    "right-now": Math.round(latest[RIGHT]),
    "wrong-now": Math.round(latest[WRONG]),
    "answered-now": Math.round(latest[ANSWERED]),
    "failed-now": Math.round(latest[FAILED]),
    "median-now": milliseconds(latest[MEDIAN]),
    "high-now": milliseconds(latest[HIGH]),
  });
  for (const [name, at] of [["wrong-now", WRONG], ["failed-now", FAILED]]) {
    fleet.querySelector(`[data-is=${name}]`).classList.toggle("is", latest[at] > 0);
  }
  updateFault(fleet.querySelector("[data-is=fault]"), fault);
  updateWorkers(fleet.querySelector("[data-is=workers]"), workers, state);
}

function verdict(rate, failing, total) {
  if (!total) return "every row right";
  const wrong = [[rate, "rows"], [failing, "requests"]].filter(([value]) => value > 0);
  if (!wrong.length) return "right at the moment";
  return `going wrong: ${wrong.map(([value, what]) => `${Math.ceil(value)} ${what}`).join(", ")} a second`;
}

function updateFault(element, fault) {
  const text = JSON.stringify(fault);
  if (!fault || element.dataset.text === text) return;
  element.dataset.text = text;
  const list = document.createElement("dl");
  for (const [name, value] of [["of", fault.of], ["is", fault.is], ["must be", fault.must]]) {
    const [term, code] = [document.createElement("dt"), document.createElement("code")];
    term.textContent = name;
    code.textContent = value;
    list.append(term, document.createElement("dd"));
    list.lastChild.append(code);
  }
  element.replaceChildren(list);
}

// Both fleets on one scale, or they could not be compared.
function updateCharts() {
  const all = state.samples.flat();
  const top = (least, ...places) => ceiling(
    Math.max(...all.flatMap((sample) => places.map((place) => sample[place] ?? 0))), least);
  const scales = {
    rows: top(100, RIGHT, WRONG),
    requests: top(20, ANSWERED, FAILED),
    latency: top(20, HIGH),
  };
  const switches = state.switches
    .map(({ at, to }) => [state.length - (state.now - at) / state.tick, `→ ${to}`])
    .filter(([place]) => place > 0);
  charts.forEach(({ rows, requests, latency }, index) => {
    const series = (place) => state.samples[index].map((sample) => sample[place]);
    rows.update(series(RIGHT), series(WRONG), scales.rows, "", switches);
    requests.update(series(ANSWERED), series(FAILED), scales.requests, "", switches);
    latency.update(series(MEDIAN), series(HIGH), scales.latency, " ms", switches);
  });
}

function mean(samples, place) {
  return samples.reduce((sum, sample) => sum + sample[place], 0) / samples.length;
}

function milliseconds(value) {
  return value === null ? "–" : `${Math.round(value)} ms`;
}

function say(text, problem = false) {
  status.classList.toggle("problem", problem);
  if (status.textContent !== text) status.textContent = text;
}

// A button that cannot be pressed now keeps the focus: it is not `disabled`.
for (const form of document.querySelectorAll(".controls form")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.querySelector("button").getAttribute("aria-disabled") === "true") return;
    const answer = await fetch(form.action, {
      method: "POST",
      body: new FormData(form),
      headers: { Accept: "application/json" },
    }).catch(() => null);
    if (answer?.status === 409) say((await answer.json()).problem, true);
    else if (!answer?.ok) say("That did not reach the demo.", true);
  });
}

follow();
