// Probabilities as bars, with thresholds and decisions in words.

import { element } from "./element.js";

export function listFindings(result, point, onMap) {
  return Object.entries(result.probabilities)
    .sort(([, a], [, b]) => b - a)
    .map(([finding, probability]) => row(finding, probability, result, point, onMap));
}

export function summarise(result) {
  const count = Object.keys(result.probabilities).length;
  if (!result.decisions) return `${count} findings, the most probable first; no operating point decides.`;
  const decisions = Object.values(result.decisions);
  const present = decisions.filter((decision) => decision === true).length;
  const open = decisions.filter((decision) => decision === null).length;
  const rest = open ? `; ${open} without a threshold` : "";
  return `${present} of ${count} findings above their threshold (${result.operating_point})${rest}.`;
}

function row(finding, probability, result, point, onMap) {
  const threshold = point ? point.thresholds[finding] : null;
  const decision = result.decisions ? result.decisions[finding] : undefined;
  const name = onMap
    ? element("button", { className: "name", type: "button", title: "Show its class-activation map", onclick: () => onMap(finding) }, finding)
    : element("span", { className: "name" }, finding);
  const value = element("span", { className: "value" }, element("b", {}, probability.toFixed(2)));
  if (decision !== undefined) value.append(element("span", { className: "decision" }, inWords(decision)));
  const bar = element("div", { className: "bar", ariaHidden: "true" }, part("fill", "width", probability));
  const line = element("li", { className: decision ? "present" : "" }, name, value, bar);
  line.dataset.finding = finding;
  const plain = 1 / (1 + Math.exp(-result.logits[finding]));
  if (result.calibration && typeof threshold === "number") {
    const [own, limit] = apart(plain, threshold);
    line.append(element("span", { className: "why" }, `uncalibrated ${own}, threshold ${limit}`));
  } else if (typeof threshold === "number") {
    bar.append(part("mark", "left", Math.max(0, threshold)));
    const [own, limit] = apart(plain, threshold);
    value.firstChild.textContent = own;
    line.append(element("span", { className: "why" }, `threshold ${limit}`));
  } else if (point && point.reasons[finding]) {
    line.append(element("span", { className: "why" }, point.reasons[finding]));
  }
  return line;
}

function inWords(decision) {
  if (decision === null) return "undecided";
  return decision ? "present" : "absent";
}

function part(className, property, share) {
  const made = element("span", { className });
  made.style[property] = `${100 * share}%`;
  return made;
}

// As many decimals as it takes to tell them apart.
function apart(probability, threshold) {
  const limit = Math.max(0, threshold);
  for (const decimals of [2, 3, 4]) {
    const texts = [probability.toFixed(decimals), limit.toFixed(decimals)];
    if (texts[0] !== texts[1] || decimals === 4) return texts;
  }
}
