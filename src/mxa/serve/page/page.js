import { NeedsToken, fetchModel, predict, useToken } from "./api.js";
import { renderCard } from "./card.js";
import { element } from "./element.js";
import { listFindings, summarise } from "./findings.js";
import { STYLES, Viewer, boxesByStage, decode } from "./viewer.js";

const VIEWS = ["frontal", "lateral", "oblique", "decubitus"];
const at = (id) => document.getElementById(id);
const viewer = new Viewer(at("canvas"));
let model, file, result, request;

listen(); // at once: a file that is dropped early must not replace the page
start();

async function start(token = "") {
  at("no-model").hidden = true;
  try {
    useToken(token);
    model = await fetchModel();
  } catch (error) {
    const needed = error instanceof NeedsToken;
    at("no-model").textContent = error.message;
    at("no-model").hidden = needed && !token; // nobody has done anything wrong yet
    if (needed) at("token-form").hidden = false;
    if (needed) at("token").focus();
    return;
  }
  at("token-form").hidden = true;
  at("main").hidden = false;
  describeModel();
  again();
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  start(at("token").value.trim());
});

function describeModel() {
  at("identity").textContent = `${model.architecture} · ${model.model_hash.slice(0, 12)} · ${model.runtime}`;
  at("hash").textContent = model.model_hash;
  at("limits").textContent = `PNG, JPEG or DICOM, at most ${Math.floor(model.limits.bytes / 2 ** 20)} MiB`;
  at("card").replaceChildren(...renderCard(model.card));
  const points = Object.keys(model.operating_points);
  const usual = points.includes("youden") ? "youden" : points[0] ?? "";
  offer(at("point"), points, model.operating_point || usual, "none: no decisions");
  offer(at("calibration"), Object.keys(model.calibrations), model.calibration, "none (sigmoid)");
  for (const view of VIEWS) at("views").append(checkbox(view, model.views.includes(view), again));
  at("maps-missing").hidden = !model.maps_missing;
  at("maps-missing").textContent = `No class-activation maps: ${model.maps_missing}.`;
  if (!model.maps_missing) offer(at("map"), model.findings, "", "none");
  warn([]);
}

function offer(select, values, chosen, none) {
  select.replaceChildren(new Option(none, ""), ...values.map((value) => new Option(value, value)));
  select.value = chosen;
}

function checkbox(text, checked, onchange, ...more) {
  return element("label", {}, element("input", { type: "checkbox", value: text, checked, onchange }), ...more, text);
}

function checked(fieldset) {
  return [...fieldset.querySelectorAll("input:checked")];
}

function listen() {
  at("file").addEventListener("change", () => take(at("file").files));
  for (const id of ["point", "calibration", "force"]) at(id).addEventListener("change", again);
  at("map").addEventListener("change", showMap);
  const stage = at("stage");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) stage.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    take(event.dataTransfer.files);
  });
}

function take(files) {
  if (!files.length) return;
  if (files.length > 1) return fail("Several files were given; give one at a time.");
  file = files[0];
  at("file").value = ""; // so that the same file can be chosen again
  again();
}

// Ask once more about the file at hand, with what is chosen now.
async function again() {
  if (!file || !model) return;
  forget();
  if (file.size > model.limits.bytes) return fail(`The file has ${file.size} bytes; this server takes ${model.limits.bytes} at most.`);
  if (!checked(at("views")).length) return fail("Choose at least one view that is accepted.");
  const own = (request = new AbortController());
  at("working").hidden = false;
  try {
    const found = await predict(file, choices(), own.signal);
    if (own !== request) return;
    const picture = await decode(found.view);
    if (own !== request) return;
    result = found;
    viewer.show(picture, result, model.preprocess.fit);
    showResult();
  } catch (error) {
    if (own === request) fail(error.message);
  } finally {
    if (own === request) at("working").hidden = true;
  }
}

// Whatever is under way has nobody who waits for it any more.
function forget() {
  request?.abort();
  request = null;
}

function choices() {
  const chosen = [["view", true], ["maps", !model.maps_missing], ["force", at("force").checked]];
  for (const [name, id] of [["operating_point", "point"], ["calibration", "calibration"]]) chosen.push([name, at(id).value]);
  return [...chosen, ...checked(at("views")).map((box) => ["views", box.value])];
}

// A result that does not belong to the file at hand must not stay.
function fail(message) {
  forget();
  at("problem").textContent = message;
  at("problem").hidden = false;
  at("working").hidden = true;
  at("canvas").hidden = at("boxes").hidden = at("maps").hidden = true;
  at("invitation").hidden = false;
  at("findings").replaceChildren();
  at("facts").textContent = "";
  at("summary").textContent = "No result.";
  result = null;
  warn([]);
  if (/\bforce\b/.test(message)) at("dicom").open = true;
  at("problem").scrollIntoView({ block: "nearest" });
}

function showResult() {
  at("problem").hidden = true;
  at("invitation").hidden = true;
  at("canvas").hidden = false;
  const [width, height] = result.size;
  at("canvas").ariaLabel = `The radiograph, ${width} by ${height} pixels`;
  at("facts").textContent = `${width} × ${height} pixels; model ${result.model_hash.slice(0, 12)}, preprocessing contract ${result.contract_version}; ${result.calibration ? `calibrated (${result.calibration}), thresholds refer to uncalibrated probabilities` : "probabilities uncalibrated"}.`;
  warn(result.notes);
  offerBoxes();
  at("maps").hidden = Boolean(model.maps_missing);
  const point = model.operating_points[result.operating_point];
  at("findings").replaceChildren(...listFindings(result, point, result.maps && toggleMap));
  showMap();
  at("summary").textContent = summarise(result);
}

function warn(notes) {
  at("notes").hidden = !notes.length;
  at("notes").querySelector("ul").replaceChildren(...notes.map((note) => element("li", {}, note)));
}

function offerBoxes() {
  const stages = [...boxesByStage(result.regions).keys()];
  at("boxes").hidden = !stages.length;
  if (!at("boxes").querySelector("label"))
    for (const stage of stages) {
      const key = element("span", { className: `key ${STYLES[stage % STYLES.length]}`, ariaHidden: "true" });
      const label = checkbox(`stage ${stage + 1}`, true, drawBoxes, key);
      label.firstChild.value = stage;
      at("boxes").append(label);
    }
  drawBoxes();
}

function drawBoxes() {
  viewer.setStages(new Set(checked(at("boxes")).map((box) => Number(box.value))));
}

function toggleMap(finding) {
  at("map").value = at("map").value === finding ? "" : finding;
  showMap();
}

function showMap() {
  const finding = at("map").value;
  for (const line of at("findings").children) {
    line.classList.toggle("shown", line.dataset.finding === finding);
    line.querySelector("button")?.setAttribute("aria-pressed", line.dataset.finding === finding);
  }
  at("scale").hidden = !finding;
  if (!finding || !result?.maps) return viewer.setMap(null);
  const { cells, window } = result.maps;
  const scale = Math.max(...Object.values(cells).flat(2).map(Math.abs)) || 1;
  at("scale-low").textContent = `−${scale.toFixed(1)}`;
  at("scale-high").textContent = `+${scale.toFixed(1)}`;
  viewer.setMap({ cells: cells[finding], scale, window });
}
