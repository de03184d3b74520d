// Charts of the last minute: two series about a base line, or a line in a band.

const SVG = "http://www.w3.org/2000/svg";
const TEXT = 60; // pixels that a text in a chart takes at most

export class Chart {
  // *kind* is "mirror" (above the line what is right, below it what is *wrong*) or
  // "line" (the first series in the band of the second).
  constructor(figure, kind, length, wrong) {
    this.wrong = wrong;
    this.kind = kind;
    this.length = length;
    this.plot = document.createElement("div");
    this.plot.className = "plot";
    this.plot.setAttribute("aria-hidden", "true");
    this.svg = this.plot.appendChild(draw("svg", {
      viewBox: `0 0 ${length} 100`,
      preserveAspectRatio: "none",
    }));
    const names = kind === "mirror" ? ["up", "down"] : ["band", "median"];
    this.paths = names.map((name) => this.svg.appendChild(draw("path", { class: name })));
    this.switches = this.svg.appendChild(draw("g", {}));
    if (kind === "mirror") {
      this.svg.append(draw("line", { class: "base", x1: 0, x2: length, y1: 50, y2: 50 }));
    }
    this.scale = this.label("scale");
    this.below = kind === "mirror" ? this.label("below") : null;
    this.marks = [];
    figure.append(this.plot);
  }

  // *first* and *second* are as long as the chart; *switches* are [place, text].
  update(first, second, top, unit, switches) {
    this.scale.textContent = `${top}${unit}`;
    if (this.kind === "mirror") {
      this.below.textContent = `${top} ${this.wrong}`;
      this.paths[0].setAttribute("d", steps(first, -50 / top));
      this.paths[1].setAttribute("d", steps(second, 50 / top));
    } else {
      this.paths[0].setAttribute("d", steps(second, -100 / top, 100));
      this.paths[1].setAttribute("d", line(first, 100 / top));
    }
    this.switches.replaceChildren(...switches.map(([place]) =>
      draw("line", { class: "switch", x1: place, x2: place, y1: 0, y2: 100 })));
    this.updateMarks(switches);
  }

  // A mark stands to the left of its line, if no other text is there already.
  updateMarks(switches) {
    for (const mark of this.marks.splice(switches.length)) mark.remove();
    const width = this.plot.clientWidth;
    let limit = width;
    for (let index = switches.length - 1; index >= 0; index -= 1) {
      const [place, text] = switches[index];
      const mark = this.marks[index] ??= this.label("mark");
      const right = (width * place) / this.length;
      mark.textContent = text;
      mark.hidden = right > limit || right < 2 * TEXT;
      mark.style.left = `${right}px`;
      if (!mark.hidden) limit = right - TEXT;
    }
  }

  label(name) {
    const label = document.createElement("span");
    label.className = name;
    return this.plot.appendChild(label);
  }
}

// A round number that is not below *value*, nor below *least*.
export function ceiling(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].find((step) => step * power >= wanted) * power;
}

function steps(values, factor, base = 50) {
  const points = values.map((value, index) => {
    const y = (base + (value ?? 0) * factor).toFixed(1);
    return `L${index} ${y}L${index + 1} ${y}`;
  });
  return `M0 ${base}${points.join("")}L${values.length} ${base}Z`;
}

function line(values, factor) {
  let pen = "M";
  return values.map((value, index) => {
    if (value === null) {
      pen = "M";
      return "";
    }
    const point = `${pen}${index + 0.5} ${(100 - value * factor).toFixed(1)}`;
    pen = "L";
    return point;
  }).join("");
}

function draw(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
