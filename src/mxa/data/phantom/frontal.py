"""The normal frontal (AP or PA) chest: soft tissue, lungs, heart, diaphragm, bones, vessels."""

import numpy as np
import numpy.typing as npt

from mxa.data.phantom.anatomy import RIBS, Chest, closed_curve, open_curve
from mxa.data.phantom.canvas import Canvas
from mxa.data.phantom.scene import Scene

Floats = npt.NDArray[np.float32]

# Rib number in Chest.breaks that stands for the clavicle.
CLAVICLE = -1
RIB_POINTS = 14
FRONT_RIBS = 7


def draw_frontal(chest: Chest, canvas: Canvas, rng: np.random.Generator) -> Scene:
    """Draw a chest without the signs that lie on top of its anatomy.

    Args:
        chest: Outlines, already changed by findings of shape (heart size, mediastinum, broken ribs).
        canvas: The pixel grids.
        rng: Lung texture and stomach gas.
    """
    offsets = rng.integers(0, 512, 4)
    gas = rng.random(3).tolist()
    lungs = [canvas.area([chest.lung(side)], blur=0.12) for side in (-1, 1)]
    heart = canvas.area([chest.heart], blur=0.16)
    both = lungs[0] + lungs[1]
    thick = 0.72 * chest.patient.depth - 0.3 * chest.patient.fat
    bulge = canvas.glow([chest.lung(-1), chest.lung(1)], blur=2.0)
    air = np.float32(thick) * both * (0.25 + 0.75 * bulge)
    air *= (1 - 0.7 * heart) * (1 - 0.93 * canvas.area([closed_curve(chest.mediastinum, 3)], blur=0.15))
    body = _body(chest, canvas)
    scene = Scene(
        canvas, body, air, both.copy(), lungs, heart,
        bone=canvas.fine(), extra_bone=canvas.fine(), vessels=canvas.fine(), lines=canvas.fine(), metal=canvas.fine(),
    )  # fmt: skip
    _airways(chest, scene)
    _abdomen(chest, scene, gas)
    _breasts(chest, scene)
    _hila(chest, scene)
    texture = 0.22 * canvas.clouds((int(offsets[0]), int(offsets[1])), 0.7)
    texture += 0.35 * canvas.clouds((int(offsets[2]), int(offsets[3])), 2.6)
    scene.body += texture * scene.open
    _bones(chest, scene)
    draw_vessels(chest, scene)
    return scene


def rib_lines(chest: Chest) -> Floats:
    """Return the posterior ribs' centre lines, (2 sides, RIBS, RIB_POINTS, 2), from the spine outwards."""
    p = chest.patient
    number = np.arange(RIBS, dtype=np.float32)[:, None]
    start = p.top + 0.8 + p.rib_pitch * number
    drop = p.rib_slope + 0.22 * number
    end = start + drop
    outer = chest.wall(end) + 0.25
    t = np.linspace(0, 1, RIB_POINTS, dtype=np.float32)
    x = 1.7 + (outer - 1.7) * np.sin(t * np.pi / 2) ** 0.92
    y = start - 1.1 * np.sin(np.pi * t) * (1 - 0.4 * t) + drop * t**2.2
    right = np.stack([-x, y], axis=2)
    return np.stack([right, right * np.array([-1, 1], dtype=np.float32)]).astype(np.float32)


def clavicle_line(chest: Chest, side: int) -> Floats:
    """Return a clavicle's centre line, (13, 2), from the sternum outwards."""
    top, rise = chest.patient.top + 1.3 * (1 - chest.pose.breath), chest.patient.clavicle
    knots = [(1.9, top + 3.9), (5.0, top + 3.1), (9.5, top + 2.7 - 0.6 * rise), (15.5, top + 2.0 - rise)]
    line = open_curve(knots, 4) * np.array([side, 1])
    line[:, 0] += 0.8 * chest.pose.turn
    return line.astype(np.float32)


def band(lines: npt.NDArray[np.floating], width: float | npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Widen centre lines (..., P, 2) into outlines (..., 2P, 2)."""
    along = np.empty_like(lines)
    along[..., 1:-1, :] = lines[..., 2:, :] - lines[..., :-2, :]
    along[..., 0, :] = lines[..., 1, :] - lines[..., 0, :]
    along[..., -1, :] = lines[..., -1, :] - lines[..., -2, :]
    along /= np.maximum(np.sqrt((along**2).sum(axis=-1, keepdims=True)), 1e-6)
    off = np.stack([-along[..., 1], along[..., 0]], axis=-1) * (np.asarray(width) / 2)
    return np.concatenate([lines + off, (lines - off)[..., ::-1, :]], axis=-2)


def draw_vessels(chest: Chest, scene: Scene) -> None:
    """Draw the vessel trees; the lungs' shape cuts them off."""
    p = chest.patient
    trees = p.vessels.copy()
    stretch = p.half_width / 14.0
    lower = 0.85 + 0.15 * chest.pose.breath
    trees[..., 0] *= stretch
    trees[..., 1] = np.where(trees[..., 1] > 0, trees[..., 1] * lower, trees[..., 1])
    # The twigs first: where they cross a branch, the branch counts.
    widths = p.vessel_widths[::-1]
    for tree in trees:
        scene.vessels.lines(tree[::-1], widths, 0.25 + 1.3 * widths)


def _body(chest: Chest, canvas: Canvas) -> Floats:
    """Return the soft tissue from front to back, cm."""
    p = chest.patient
    top, side = p.top, p.half_width + p.fat + 1.2
    right = [(-30.0, top + 3.2), (-18.5, top + 0.4), (-11.0, top - 1.6), (-6.4, top - 3.6), (-5.8, top - 25)]
    arm = [(-side * 1.0, 40.0), (-side, 6.0), (-side - 0.6, top + 13), (-side - 2.2, top + 10.2), (-30.0, top + 13.5)]
    left = [(-x, y) for x, y in right[::-1]]
    outline = np.array(right + left + [(-x, y) for x, y in arm[::-1]] + arm)
    inside = canvas.area([outline], blur=0.18)
    round_ = np.sqrt(np.maximum(1 - 0.74 * (canvas.x / side) ** 2, 0.16))
    # Neck and shoulders are thinner than the trunk, the belly is thicker.
    y = canvas.y[:, canvas.shape[1] // 2, None]
    along = 0.66 + 0.34 * np.clip((y - (top - 3)) / 9, 0, 1) + 0.08 * np.clip((y - chest.base + 3) / 8, 0, 1)
    return inside * round_ * (np.float32(p.depth) * along)


def _airways(chest: Chest, scene: Scene) -> None:
    top, turn = chest.patient.top, 0.25 * chest.pose.turn
    fork = (0.25 + turn, top + 9.6)
    tube = np.array([(0.0, top - 8), (0.15 + turn, top + 3), (0.45 + turn, top + 6), fork])
    right = np.array([fork, (-2.0 + turn, top + 11.6), (-3.2 + turn, top + 13.2)])
    left = np.array([fork, (2.6 + turn, top + 11.4), (4.2 + turn, top + 12.0)])
    scene.body -= 1.9 * scene.canvas.lines([(tube, 1.75), (right, 1.2), (left, 1.1)], blur=0.16)


def _abdomen(chest: Chest, scene: Scene, gas: list[float]) -> None:
    """Put gas into the stomach, under the left dome."""
    x, y = scene.canvas.x, scene.canvas.y
    middle = (5.2 + 2.0 * gas[0], float(chest.dome(1, 6.0)) + 2.4)
    r = ((x - middle[0]) / (1.6 + 1.8 * gas[1])) ** 2 + ((y - middle[1]) / 1.5) ** 2
    scene.body -= np.float32(5.0 * gas[2]) * np.clip(1.3 - r, 0, 1) * (1 - scene.lungs[1])


def _breasts(chest: Chest, scene: Scene) -> None:
    p = chest.patient
    if p.breast <= 0:
        return
    wide, tall = 5.2 + 0.5 * p.breast, 4.6 + 0.7 * p.breast
    dx = (np.abs(scene.canvas.x) - 0.60 * p.half_width) / wide
    dy = (scene.canvas.y - p.breast_y) / tall
    # Full below, thinning out upwards.
    scene.body += p.breast * np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1)) * np.clip(0.75 + 0.5 * dy, 0.1, 1)


def _hila(chest: Chest, scene: Scene) -> None:
    x, y, turn = scene.canvas.x, scene.canvas.y, 0.3 * chest.pose.turn
    for cx, cy in ((-3.7 + turn, -0.6), (3.9 + turn, -1.5)):
        scene.body += 2.0 * np.exp(-(((x - cx) / 1.1) ** 2) - ((y - cy) / 1.9) ** 2)


def _bones(chest: Chest, scene: Scene) -> None:
    _spine(chest, scene)
    _shoulders(chest, scene)
    ribs = rib_lines(chest)
    _front_ribs(chest, scene, ribs)
    _back_ribs(chest, scene, ribs)
    for side in (-1, 1):
        line = clavicle_line(chest, side)
        cuts = [(at, shift) for rib, where, at, shift in chest.breaks if rib == CLAVICLE and where == side]
        scene.bone.polygons([band(part, 1.25) for part in _pieces(line, cuts)], 0.62, 0.95)


def _back_ribs(chest: Chest, scene: Scene, lines: Floats) -> None:
    outlines = band(lines, chest.patient.rib_width)
    whole = np.ones((2, RIBS), dtype=bool)
    for rib, side, at, shift in chest.breaks:
        if rib != CLAVICLE:
            index = 0 if side < 0 else 1
            whole[index, rib] = False
            parts = _pieces(lines[index, rib], [(at, shift)])
            scene.bone.polygons([band(part, chest.patient.rib_width) for part in parts], 0.5, 0.95)
    scene.bone.polygons(outlines[whole], 0.42, 0.72)


def _front_ribs(chest: Chest, scene: Scene, ribs: Floats) -> None:
    """Draw the front ends: from the side down and inwards to the cartilage, fainter than the back."""
    back = ribs[:, :FRONT_RIBS, -1]
    t = np.linspace(0, 1, 10, dtype=np.float32)
    number = np.arange(FRONT_RIBS, dtype=np.float32)[None, :, None]
    inner = 4.6 + 0.75 * number
    outer = np.abs(back[..., :1])
    x = outer - (outer - inner) * (1 - np.cos(t * np.pi / 2)) ** 0.85
    y = back[..., 1:] + (3.6 + 0.35 * number) * np.sin(t * np.pi / 2) ** 1.1
    side = np.array([-1, 1], dtype=np.float32)[:, None, None]
    lines = np.stack([x * side + 0.5 * chest.pose.turn, y], axis=-1)
    scene.extra_bone.polygons(band(lines, 1.15 * chest.patient.rib_width).reshape(2 * FRONT_RIBS, -1, 2), 0.22, 0.36)


def _spine(chest: Chest, scene: Scene) -> None:
    top = chest.patient.top
    y = top - 9.7 + 2.35 * np.arange(17)
    bend = chest.patient.scoliosis * np.sin((y - top) / 26 * np.pi)
    half = 1.3 + 0.035 * np.arange(17)
    centres = np.stack([bend, y], axis=1)[:, None]
    block = np.array([(-1, -1.0), (-0.88, 0), (-1, 1.0), (1, 1.0), (0.88, 0), (1, -1.0)])
    process = np.array([(-0.28, 0.1), (0, -0.35), (0.28, 0.1), (0.2, 1.0), (-0.2, 1.0)])
    wide = np.stack([half, np.ones_like(half)], axis=1)[:, None]
    scene.extra_bone.polygons(block * wide + centres, 0.5, 0.7)
    scene.extra_bone.polygons(process + centres, 0.75)


def _shoulders(chest: Chest, scene: Scene) -> None:
    top, over = chest.patient.top, chest.pose.scapulae
    for side in (-1, 1):
        inner = chest.patient.half_width + 1.6 - 3.6 * over
        blade = np.array(
            [
                (inner + 1.5, top + 3.5),
                (inner, top + 8),
                (inner + 1.8, top + 16),
                (inner + 4, top + 9),
                (inner + 6.5, top + 4.5),
            ]
        )
        scene.extra_bone.polygons([blade * (side, 1)], 0.16, 0.32)
        ring = np.linspace(0, 2 * np.pi, 16)
        head = np.stack([17.6 + 2.4 * np.cos(ring), top + 4.2 + 2.4 * np.sin(ring)], axis=1)
        shaft = np.array([(18.0, top + 5), (20.2, top + 4.5), (23, top + 14), (21, top + 14)])
        scene.extra_bone.polygons([head * (side, 1), shaft * (side, 1)], 0.75, 0.9)


def _pieces(line: Floats, cuts: list[tuple[int, float]]) -> list[Floats]:
    """Break a centre line: the outer piece is shifted across, and a gap stays between."""
    if not cuts:
        return [line]
    at, shift = cuts[0]
    outer = line[at:] + np.array([0.0, shift], dtype=np.float32)
    outer[0] += 0.45 * (outer[1] - outer[0])
    inner = line[: at + 1].copy()
    inner[-1] -= 0.2 * (inner[-1] - inner[-2])
    return [inner, outer]
