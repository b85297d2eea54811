"""The normal lateral chest: sternum in front, spine behind, two domes, heart in front of the hila."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mxa.data.phantom.anatomy import Chest, closed_curve, open_curve
from mxa.data.phantom.canvas import Canvas
from mxa.data.phantom.frontal import band
from mxa.data.phantom.scene import Scene

Floats = npt.NDArray[np.float32]

HILUM = (1.2, 0.0)
_SIDE_RIBS = 9


def draw_lateral(chest: Chest, canvas: Canvas, rng: np.random.Generator) -> Scene:
    """Draw a chest from the side, without the signs that lie on top of its anatomy; see ``draw_frontal``."""
    offsets = rng.integers(0, 512, 4)
    outlines = [lung_outline(chest, side) for side in (-1, 1)]
    lungs = [canvas.area([outline], blur=0.14) for outline in outlines]
    heart = canvas.area([heart_outline(chest)], blur=0.3)
    bulge = canvas.glow(outlines, blur=1.6)
    air = np.float32(0.36 * chest.patient.depth) * (lungs[0] + lungs[1]) * (0.3 + 0.7 * bulge)
    air *= (1 - 0.5 * heart) * (1 - 0.4 * canvas.area([_mediastinum(chest)], blur=0.5))
    seen = np.maximum(lungs[0], lungs[1])
    scene = Scene(
        canvas, _body(chest, canvas), air, seen, lungs, heart,
        bone=canvas.fine(), extra_bone=canvas.fine(), vessels=canvas.fine(), lines=canvas.fine(), metal=canvas.fine(),
    )  # fmt: skip
    _middle(chest, scene)
    texture = 0.22 * canvas.clouds((int(offsets[0]), int(offsets[1])), 0.7)
    texture += 0.4 * canvas.clouds((int(offsets[2]), int(offsets[3])), 2.6)
    scene.body += texture * scene.open
    _bones(chest, scene)
    _vessels(chest, scene)
    return scene


def front_wall(chest: Chest, y: npt.ArrayLike) -> Floats:
    """Return the x of the inner front wall at height y."""
    s = _down(chest, y)
    return (-(chest.patient.half_width / 14) * (1.4 + 9.2 * np.sqrt(s) - 0.6 * s)).astype(np.float32)


def back_wall(chest: Chest, y: npt.ArrayLike) -> Floats:
    """Return the x of the inner back wall at height y."""
    s = _down(chest, y)
    bend = chest.patient.kyphosis
    return (2.4 + (6.8 + bend) * np.sin(np.pi * np.clip(s * 0.85 + 0.03, 0, 1)) ** 0.65 + 1.2 * s).astype(np.float32)


def floor(chest: Chest, side: int, x: npt.ArrayLike) -> Floats:
    """Return the y of one diaphragm dome at x; it falls away steeply behind. Side is -1 for the right dome."""
    a = np.asarray(x, dtype=np.float32)
    lift = chest.lift[0 if side < 0 else 1]
    height = chest.patient.dome[0 if side < 0 else 1] + lift - (0.0 if side < 0 else 0.9)
    peak = -2.0
    rear = np.maximum(a - peak, 0) / 11.0
    fore = np.maximum(peak - a, 0) / 8.5
    return (chest.base - 0.4 - height + (height + 2.6) * rear**1.7 + 1.9 * fore**2).astype(np.float32)


def lung_outline(chest: Chest, side: int) -> Floats:
    """(K, 2) closed outline of one lung from the side."""
    top = chest.patient.top + 0.4
    x = np.linspace(float(front_wall(chest, chest.base - 3)), float(back_wall(chest, chest.base + 2)), 18)
    bottom = np.stack([x, floor(chest, side, x)], axis=1)
    y = top + np.linspace(0, 1, 14) ** 1.4 * (float(bottom[0, 1]) - top)
    front = np.stack([front_wall(chest, y), y], axis=1)
    y = top + np.linspace(1, 0, 16) ** 1.2 * (float(bottom[-1, 1]) - top)
    back = np.stack([back_wall(chest, y), y], axis=1)
    return np.concatenate([front, bottom[1:-1], back, [[0.5, top - 0.9]]]).astype(np.float32)


def heart_outline(chest: Chest) -> Floats:
    """(K, 2) closed outline of the heart from the side, growing with the heart's share of the chest."""
    size = 4.6 * (chest.ratio / 0.45) ** 0.9 * chest.patient.half_width / 14
    knots = np.array(
        [(-0.5, -1.25), (-1.0, -0.5), (-1.15, 0.4), (-0.7, 1.0), (0.4, 0.95), (1.0, 0.3), (0.85, -0.5), (0.25, -1.1)]
    )
    # A raised dome does not carry the heart along.
    y = float(floor(replace(chest, lift=(0.0, 0.0)), 1, -4.0)) - 0.75 * size
    x = float(front_wall(chest, y)) + 1.25 * size
    return (closed_curve(knots, 4) * size + (x, y)).astype(np.float32)


def spine_line(chest: Chest) -> Floats:
    """(15, 2), centres of the vertebral bodies from the neck down."""
    y = chest.patient.top - 4 + 2.3 * np.arange(15)
    return np.stack([back_wall(chest, np.maximum(y, chest.patient.top + 1)) - 2.6, y], axis=1).astype(np.float32)


def side_ribs(chest: Chest) -> Floats:
    """(N, 12, 2), centre lines of the ribs, from the back down and forwards."""
    number = np.arange(_SIDE_RIBS, dtype=np.float32)[:, None]
    y0 = chest.patient.top + 1.0 + 2.15 * number
    t = np.linspace(0, 1, 12, dtype=np.float32)
    start, end = back_wall(chest, y0) + 0.3, front_wall(chest, y0 + 6) + 1.0 + 0.35 * number
    x = start + (end - start) * t
    y = y0 + (5.2 + 0.35 * number) * t**1.3 - 1.2 * np.sin(np.pi * t)
    return np.stack([x, y], axis=2).astype(np.float32)


def _down(chest: Chest, y: npt.ArrayLike) -> Floats:
    top = chest.patient.top
    return np.clip((np.asarray(y, dtype=np.float32) - top) / (chest.base - top), 0, 1).astype(np.float32)


def _body(chest: Chest, canvas: Canvas) -> Floats:
    p = chest.patient
    y = np.linspace(p.top + 2, chest.base + 3, 12)
    skin = p.fat * 0.7 + 1.2
    front = np.stack([front_wall(chest, y) - skin, y], axis=1)
    dy = (y - p.breast_y) / 5.5
    front[:, 0] -= 1.3 * p.breast * np.sqrt(np.clip(1 - dy**2, 0, 1))
    back = np.stack([back_wall(chest, y) + 3.0 + 0.6 * p.fat, y], axis=1)
    bottom = [(front[-1, 0] - 0.5 * p.fat, 40.0), (back[-1, 0] - 1.0, 40.0)]
    # The arms are held up in front of the neck.
    head = [
        (back[0, 0] - 0.5, p.top - 3),
        (6.0, p.top - 25),
        (-11.0, p.top - 25),
        (-9.0, p.top - 5),
        (-7.5, p.top - 1.0),
    ]
    inside = canvas.area([np.concatenate([front, bottom, back[::-1], head])], blur=0.25)
    middle = 0.5 * (front_wall(chest, 3.0) + back_wall(chest, 3.0))
    round_ = np.sqrt(np.maximum(1 - 0.62 * ((canvas.x - middle) / 15.5) ** 2, 0.25))
    belly = np.clip((canvas.y - chest.base + 4) / 8, 0, 1)
    shoulder = np.clip((p.top + 7 - canvas.y) / 7, 0, 1)
    return np.float32(1.04 * p.depth) * inside * round_ * (1 + 0.08 * belly + 0.14 * shoulder)


def _mediastinum(chest: Chest) -> Floats:
    top = chest.patient.top
    wide = chest.neck / 2.8
    points = [
        (-2.6 * wide, top - 3),
        (-3.4 * wide, top + 5),
        (-3.6 * wide, top + 10),
        (3.6, top + 14),
        (3.2 * wide, top + 6),
        (2.2, top - 3),
    ]
    return np.array(points, dtype=np.float32)


def _middle(chest: Chest, scene: Scene) -> None:
    """Draw windpipe, aorta and hila."""
    top, canvas = chest.patient.top, scene.canvas
    tube = np.array([(-1.2, top - 10), (-0.4, top), (0.9, top + 6), (1.8, top + 11)])
    scene.body -= 2.4 * canvas.lines([(tube, 1.7)], blur=0.18)
    arch = open_curve(
        [(-2.6, top + 11), (-2.0, top + 7.5), (1.0, top + 5.4), (4.2, top + 7.6), (5.0, top + 12), (4.8, top + 24)], 5
    )
    scene.body += (0.7 + 0.6 * chest.patient.knob) * canvas.lines([(arch, 1.9 + 0.3 * chest.patient.knob)], blur=0.3)
    r = ((canvas.x - HILUM[0]) / 1.5) ** 2 + ((canvas.y - HILUM[1]) / 1.8) ** 2
    scene.body += 3.0 * np.exp(-r)


def _bones(chest: Chest, scene: Scene) -> None:
    block = np.array([(-1.6, -0.95), (-1.45, 0), (-1.6, 0.95), (1.6, 0.95), (1.45, 0), (1.6, -0.95)])
    centres = spine_line(chest)[:, None]
    scene.bone.polygons(block + centres, 0.55, 0.95)
    scene.bone.polygons(np.array([(1.7, -0.5), (4.0, 0.9), (3.8, 1.7), (1.7, 0.6)]) + centres, 0.4)
    y = np.linspace(chest.patient.top + 4.5, chest.base - 4, 8)
    sternum = np.stack([front_wall(chest, y) - 0.7, y], axis=1)
    scene.bone.polygons([band(sternum, 1.1)], 0.45, 0.8)
    scene.extra_bone.polygons(band(side_ribs(chest), 1.05 * chest.patient.rib_width), 0.13, 0.3)
    for rib, _, at, shift in chest.breaks:
        _break(chest, scene, rib, at, shift)
    blade = np.array([(6.5, 2), (8.5, 4), (9.5, 12), (8.0, 15), (7.5, 8)])
    scene.extra_bone.polygons([blade + np.array([chest.patient.kyphosis, chest.patient.top])], 0.14, 0.34)


def _break(chest: Chest, scene: Scene, rib: int, at: int, shift: float) -> None:
    """Draw one rib's front piece again, out of line with the rear one."""
    line = side_ribs(chest)[rib % _SIDE_RIBS]
    at = min(at, 8)
    scene.bone.polygons([band(line[at : at + 4] + np.array([0.0, shift]), chest.patient.rib_width)], 0.75, 1.0)


def _vessels(chest: Chest, scene: Scene) -> None:
    """Lay the right tree forwards and the left one backwards from the hila."""
    p = chest.patient
    for index, direction in ((0, -0.75), (1, 0.8)):
        tree = p.vessels[index].copy()
        tree[..., 0] = HILUM[0] + direction * (np.abs(tree[..., 0]) - 2.8)
        tree[..., 1] += HILUM[1] + 1.0
        widths = p.vessel_widths[::-1]
        scene.vessels.lines(tree[::-1], widths, 0.2 + 1.2 * widths)
