// The model card: as much of Markdown as cards have. Everything goes into the page as text, nothing as HTML.

import { element } from "./element.js";

export function renderCard(markdown) {
  const lines = markdown.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n");
  const parts = [];
  while (lines.length) {
    const line = lines.shift();
    if (line.startsWith("```")) parts.push(element("pre", { tabIndex: 0 }, take(lines, (next) => !next.startsWith("```")).join("\n"))), lines.shift();
    else if (line.startsWith("|")) parts.push(table([line, ...take(lines, (next) => next.startsWith("|"))]));
    else if (line.startsWith("#")) parts.push(element("h3", { className: line.startsWith("##") ? "" : "title" }, line.replace(/^#+ /, "")));
    else if (line) parts.push(element("p", {}, ...inline([line, ...take(lines, (next) => next && !/^(#|\||```)/.test(next))].join(" "))));
  }
  return parts;
}

function take(lines, fits) {
  const taken = [];
  while (lines.length && fits(lines[0])) taken.push(lines.shift());
  return taken;
}

function table(lines) {
  const rows = lines.map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  const body = element("table");
  rows.forEach((cells, i) => {
    if (i === 1) return; // |---|---|
    body.append(element("tr", {}, ...cells.map((cell) => element(i ? "td" : "th", {}, ...inline(cell)))));
  });
  return element("div", { className: "scroll" }, body);
}

function inline(text) {
  return text.split(/(\*\*.+?\*\*|`.+?`)/).map((piece) => {
    if (piece.startsWith("**")) return element("strong", {}, piece.slice(2, -2));
    if (piece.startsWith("`")) return element("code", {}, piece.slice(1, -1));
    return piece;
  });
}
