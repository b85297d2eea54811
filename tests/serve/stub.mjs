// As much of a browser as the page needs to run in Node: it draws nothing, and a scenario says when things end.

const made = {};

function make() {
  const listeners = {};
  const node = {
    children: [],
    classList: { add() {}, remove() {}, toggle() {} },
    clientWidth: 100,
    dataset: {},
    hidden: false,
    style: {},
    textContent: "",
    value: "",
    get firstChild() {
      return node.children[0] ?? make();
    },
    addEventListener: (kind, listener) => (listeners[kind] ??= []).push(listener),
    append: (...children) => node.children.push(...children),
    fire: (kind) => listeners[kind].forEach((listener) => listener({ preventDefault() {} })),
    focus() {},
    getContext: () => new Proxy({}, { get: () => () => {}, set: () => true }),
    querySelector: () => make(),
    querySelectorAll: () => [],
    replaceChildren: (...children) => (node.children = children),
    scrollIntoView() {},
    setAttribute() {},
  };
  return node;
}

export const at = (id) => (made[id] ??= make());
export const tick = () => new Promise((done) => setTimeout(done, 1));

at("main").hidden = at("token-form").hidden = at("no-model").hidden = at("problem").hidden = at("working").hidden = true;
at("views").querySelectorAll = () => [{ value: "frontal" }];

// Pictures whose bytes come last, by their address.
export const slow = {};
export const drawn = () => pictures.at(-1);
const pictures = [];

globalThis.document = { getElementById: at, querySelector: at, createElement: make, addEventListener() {} };
globalThis.devicePixelRatio = 1;
globalThis.ResizeObserver = class {
  observe() {}
};
globalThis.Option = class {};
globalThis.Image = class {
  decode() {
    return slow[this.src] ?? Promise.resolve();
  }
};
at("canvas").getContext = () =>
  new Proxy({}, { get: (_, name) => (name === "drawImage" ? (image) => pictures.push(image.src) : () => {}), set: () => true });

export const server = { status: 200, headers: [] };
const model = {
  architecture: "a",
  calibration: "",
  calibrations: {},
  card: "",
  findings: ["Edema"],
  limits: { bytes: 1000 },
  maps_missing: "none",
  model_hash: "f".repeat(64),
  operating_point: "",
  operating_points: {},
  preprocess: { fit: "squash" },
  runtime: "r",
  views: ["frontal"],
};

// The predictions that are asked for, in order.
const asked = [];

globalThis.fetch = (path, { headers, signal }) => {
  new Headers(headers); // as a browser does, it takes no characters beyond Latin-1
  server.headers.push(headers);
  if (path === "model") return Promise.resolve({ ok: server.status === 200, status: server.status, json: async () => model });
  return new Promise((resolve, reject) => {
    asked.push(resolve);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
};

export async function give(...files) {
  at("file").files = files.map(([name, size]) => new File([new Uint8Array(size)], name));
  at("file").fire("change");
  await tick();
}

// Answer the request of that number: a picture of that address, and a probability.
export async function answer(number, view, probability) {
  const result = {
    calibration: "",
    contract_version: 1,
    decisions: null,
    logits: { Edema: 0 },
    model_hash: model.model_hash,
    notes: [],
    operating_point: "",
    probabilities: { Edema: probability },
    regions: {},
    size: [10, 10],
    view,
  };
  asked[number]({ ok: true, json: async () => result });
  await tick();
}

export async function submit(token) {
  at("token").value = token;
  at("token-form").fire("submit");
  await tick();
}

// What the page says, blank where it is hidden.
export const seen = (id) => (at(id).hidden ? "" : at(id).textContent);
export const findings = () => at("findings").children.map((line) => line.children[1].children[0].children[0]);
