// The picture with boxes, class-activation map and what the network did not see.

const BOX = "#ff4655";
const FOR = [0xf0, 0x88, 0x2d];
const AGAINST = [0x4f, 0xa8, 0xe8];
const DASHES = [[1, 5], [9, 6], []]; // dotted, dashed, solid: stage 1, 2, 3
const MAP_SIDE = 192;

export const STYLES = ["dotted", "dashed", "solid"];

// The boxes of the last block of each stage, one for each of its regions; blocks come in the network's order.
export function boxesByStage(regions) {
  const last = new Map();
  for (const [name, box] of Object.entries(regions)) {
    const block = name.split(".regions.")[0];
    const stage = Number(name.split(".")[1]);
    if (last.get(stage)?.block !== block) last.set(stage, { block, boxes: [] });
    last.get(stage).boxes.push(box);
  }
  return new Map([...last].map(([stage, { boxes }]) => [stage, boxes]));
}

export async function decode(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  return picture;
}

export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.picture = null;
    this.stages = new Set();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // picture: result.view, decoded.
  show(picture, result, fit) {
    Object.assign(this, { picture, fit, size: result.size, boxes: boxesByStage(result.regions), map: null });
    this.draw();
  }

  setStages(stages) {
    this.stages = stages;
    this.draw();
  }

  // cells: rows of a map; scale: its colours' extreme; window: left, top, right, bottom in pixels of the picture.
  setMap(map) {
    this.map = map && { window: map.window, image: paint(map.cells, map.scale) };
    this.draw();
  }

  draw() {
    if (!this.picture) return;
    const [width, height] = this.size;
    const { canvas, context } = this;
    canvas.style.aspectRatio = `${width} / ${height}`;
    canvas.style.maxWidth = `${(75 * width) / height}vh`; // the whole picture stays visible
    const across = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    const down = Math.max(1, Math.round((across * height) / width));
    if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
    const scale = across / width;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, 0, 0, across, down);
    if (this.map) drawWindow(context, this.map.image, this.map.window, scale);
    if (this.fit === "crop") this.hatch(scale);
    const thick = Math.max(2, across / 320);
    for (const [stage, boxes] of this.boxes) {
      if (!this.stages.has(stage)) continue;
      const dash = DASHES[stage % DASHES.length].map((length) => length * thick * 0.6);
      const inset = thick / 2; // a box at the picture's edge stays visible
      for (const [x1, y1, x2, y2] of boxes) {
        const corner = [x1 * scale + inset, y1 * scale + inset, (x2 - x1) * scale - thick, (y2 - y1) * scale - thick];
        stroke(context, corner, "#00000060", thick * 1.8, []); // sets it off from what is bright
        stroke(context, corner, BOX, thick, dash);
      }
    }
  }

  hatch(scale) {
    const [width, height] = this.size;
    const side = Math.min(width, height);
    const [left, top] = [(width - side) / 2, (height - side) / 2];
    const { context } = this;
    context.fillStyle = "#101418b0";
    const bands = left > 0 ? [[0, 0, left, height], [width - left, 0, left, height]] : [[0, 0, width, top], [0, height - top, width, top]];
    for (const band of bands) context.fillRect(...band.map((value) => value * scale));
  }
}

function stroke(context, corner, colour, thick, dash) {
  context.setLineDash(dash);
  context.lineCap = dash.length ? "round" : "butt";
  context.strokeStyle = colour;
  context.lineWidth = thick;
  context.strokeRect(...corner);
}

function drawWindow(context, image, [left, top, right, bottom], scale) {
  context.imageSmoothingEnabled = true;
  context.drawImage(image, left * scale, top * scale, (right - left) * scale, (bottom - top) * scale);
}

// Bilinear between the centres of the cells, constant beyond the outermost ones, as mxa.explain lays a map over a picture.
function paint(cells, scale) {
  const image = new OffscreenCanvas(MAP_SIDE, MAP_SIDE);
  const context = image.getContext("2d");
  const pixels = context.createImageData(MAP_SIDE, MAP_SIDE);
  const down = places(cells.length), across = places(cells[0].length);
  let at = 0;
  for (const [row, nextRow, low] of down) {
    for (const [column, nextColumn, right] of across) {
      const upper = cells[row][column] * (1 - right) + cells[row][nextColumn] * right;
      const lower = cells[nextRow][column] * (1 - right) + cells[nextRow][nextColumn] * right;
      const value = (upper * (1 - low) + lower * low) / scale;
      pixels.data.set(value > 0 ? FOR : AGAINST, at);
      pixels.data[at + 3] = Math.round(255 * 0.75 * Math.min(1, Math.abs(value)));
      at += 4;
    }
  }
  context.putImageData(pixels, 0, 0);
  return image;
}

// Of each pixel the cell before it, the cell behind it, and how far it is on the way.
function places(count) {
  return Array.from({ length: MAP_SIDE }, (_, i) => {
    const place = Math.min(count - 1, Math.max(0, ((i + 0.5) / MAP_SIDE) * count - 0.5));
    const cell = Math.min(count - 1, Math.floor(place));
    return [cell, Math.min(count - 1, cell + 1), place - cell];
  });
}
