// Which server served when, when rows were wrong, and the list of switches.

import { clock, count, fill } from "./text.js";

const SHOWN = 600;
const LISTED = 8;

export function updateTimeline(section, state) {
  const from = Math.max(0, state.now - SHOWN);
  const span = Math.max(state.now - from, 1);
  const place = (begin, end) => [
    `${(100 * (Math.max(begin, from) - from)) / span}%`,
    `${(100 * (end - Math.max(begin, from))) / span}%`,
  ];
  segment(section, "server", periods(state, from).map(([begin, end, server]) =>
    ({ place: place(begin, end), server, text: state.servers[server].release })));
  ["left", "right"].forEach((side, index) => segment(section, side,
    state.fleets[index].faults.map(([begin, end]) => ({ place: place(begin, end) }))));
  fill(section, { from: clock(from), to: `now, ${clock(state.now)}` });
  list(section.querySelector("[data-is=switches]"), state);
}

// [begin, end, server] of each period in which one server served.
function periods(state, from) {
  const releases = state.servers.map((server) => server.release);
  const found = [];
  let begin = from;
  for (const { at, from: source } of state.switches) {
    found.push([begin, at, releases.indexOf(source)]);
    begin = at;
  }
  found.push([begin, state.now, state.serving]);
  return found;
}

function segment(section, lane, segments) {
  const track = section.querySelector(`[data-lane=${lane}] .track`);
  while (track.children.length > segments.length) track.lastChild.remove();
  segments.forEach(({ place: [left, width], server, text = "" }, index) => {
    const element = track.children[index] ?? track.appendChild(makeSegment());
    if (server !== undefined) element.dataset.server = server;
    element.style.left = left;
    element.style.width = width;
    if (element.textContent !== text) element.firstChild.textContent = text;
  });
}

function makeSegment() {
  const element = document.createElement("div");
  element.className = "segment";
  element.append(document.createElement("span"));
  return element;
}

// Row by row in place: what is being read, or selected, stays where it is.
function list(body, { switches }) {
  if (!switches.length) return;
  const latest = switches.slice(-LISTED).reverse();
  while (body.rows.length > latest.length) body.lastElementChild.remove();
  latest.forEach(({ at, from, to, seconds, wrong }, place) => {
    const row = body.rows[place] ?? body.insertRow();
    const took = seconds === null ? "under way" : `${seconds.toFixed(2)} s`;
    [clock(at), `${from} → ${to}`, took, ...wrong.map(count)].forEach((text, column) => {
      const cell = row.cells[column] ?? row.insertCell();
      cell.colSpan = 1;
      if (cell.textContent !== text) cell.textContent = text;
      cell.classList.toggle("number", column > 1);
      cell.classList.toggle("bad", column > 2 && text !== "0");
    });
  });
}
