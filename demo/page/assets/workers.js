// Each worker: the server its rows come from, and the OIDs it goes by.

import { clock, fill } from "./text.js";

export function updateWorkers(list, workers, { servers, now }) {
  const template = document.getElementById("worker-template");
  while (list.children.length > workers.length) list.lastElementChild.remove();
  workers.forEach((worker, index) => {
    const item = list.children[index]
      ?? list.appendChild(template.content.firstElementChild.cloneNode(true));
    const server = servers.findIndex((one) => one.number === worker.server);
    const truth = servers[server]?.types ?? {};
    fill(item, {
      name: `Worker ${index + 1}`,
      release: server < 0 ? "" : servers[server].release,
      pid: worker.pid,
      up: clock(now - worker.since),
    });
    item.dataset.server = server;
    item.querySelector(".release").dataset.server = server;
    const rows = Object.keys(servers[0].types).map((type) =>
      [type, worker.types[type], truth[type]]);
    item.classList.toggle("stale", rows.some((row) => isStale(row)));
    updateTypes(item.querySelector("[data-is=types]"), rows);
  });
}

const isStale = ([, known, right]) =>
  known !== undefined && right !== undefined && known !== right;

function updateTypes(list, rows) {
  const text = JSON.stringify(rows);
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(...rows.map((row) => {
    const [type, known, right] = row;
    const line = document.createElement("div");
    line.append(element("dt", type), element("dd", known ?? "–"));
    if (isStale(row)) {
      line.lastChild.className = "stale";
      line.lastChild.append(` ✕ is ${right}`);
    } else if (known !== undefined && right !== undefined) {
      line.lastChild.append(" ✓");
    }
    return line;
  }));
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
