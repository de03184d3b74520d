// Figures as people read them, and where they go.

const number = new Intl.NumberFormat("en");

export const count = (value) => number.format(value);

export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// Put *texts*, by name, into the elements marked data-is=name within *root*.
export function fill(root, texts) {
  for (const [name, text] of Object.entries(texts)) {
    const element = root.querySelector(`[data-is=${name}]`);
    if (element.textContent !== String(text)) element.textContent = text;
  }
}
