"""The findings' signs in the lateral view: simpler than the frontal ones, in the places where they would show."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mxa.data.phantom.anatomy import Chest
from mxa.data.phantom.frontal import band
from mxa.data.phantom.frontal_signs import Draw, reshape_frontal
from mxa.data.phantom.lateral import HILUM, back_wall, floor, front_wall, heart_outline, side_ribs
from mxa.data.phantom.scene import Scene
from mxa.data.phantom.signs import Sign, disc, haze, patch

Floats = npt.NDArray[np.float32]


def reshape_lateral(chest: Chest, sign: Sign) -> Chest:
    """Change the anatomy for a finding of shape; other findings leave it as it is."""
    if sign.finding == "Enlarged Cardiomediastinum":
        return chest  # from the side it only fills the space behind the sternum, see draw_widening
    if sign.finding == "Fracture":
        u = sign.traits
        shift = 0.5 + 1.2 * sign.visibility
        return replace(chest, breaks=((2 + int(5 * u[3]), sign.side, 2 + int(5 * u[5]), shift),))
    return reshape_frontal(chest, sign)


def _lungs(scene: Scene) -> Floats:
    return np.maximum(scene.lungs[0], scene.lungs[1])


def _place(chest: Chest, down: float, back: float) -> tuple[float, float]:
    """Return a place in the lungs: ``down`` from apex to base, ``back`` from front to back wall, both in [0, 1]."""
    y = chest.patient.top + 1.5 + down * (chest.base - chest.patient.top - 2.5)
    front, rear = float(front_wall(chest, y)) + 2.0, float(back_wall(chest, y)) - 1.0
    x = front + back * (rear - front)
    return x, min(y, float(floor(chest, -1, x)) - 1.0)


def draw_widening(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """The clear space behind the sternum fills up."""
    top, v = chest.patient.top, sign.visibility
    where = patch(scene.canvas, rng, (-3.8, top + 7.5), (2.4 + 1.2 * v, 5.0), 0.06, 2.0) * _lungs(scene)
    scene.air *= 1 - np.float32(0.2 + 0.5 * v) * where
    scene.mark(sign.finding, where > 0.25)


def mark_heart(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Mark the heart; :func:`reshape_lateral` has enlarged it."""
    scene.mark(sign.finding, scene.canvas.area([heart_outline(chest)]) > 0.5)


def draw_opacity(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """An unspecific focal haze, unless another opacity is there to be it."""
    if not sign.alone:
        return
    u, v = sign.traits, sign.visibility
    radius = 2.2 + 1.4 * u[3] + 1.0 * v
    where = patch(
        scene.canvas,
        rng,
        _place(chest, 0.25 + 0.6 * u[1], u[2]),
        (radius, radius * (0.7 + 0.6 * u[4])),
        0.25,
        2.0,
        3 * u[5],
    )
    haze(scene, sign.finding, where, 0.12 + 0.38 * v)


def draw_lesion(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """One round nodule or mass."""
    u, v = sign.traits, sign.visibility
    radius = 0.6 + 1.3 * v + 1.0 * u[4] * v
    r = disc(scene.canvas, _place(chest, 0.1 + 0.7 * u[1], u[6]), (radius, radius * (0.85 + 0.3 * u[5])), 3 * u[6])
    seen = np.clip((1.15 - np.sqrt(r)) / 0.3, 0, 1) * _lungs(scene)
    scene.body += np.float32((1.0 + 2.2 * v) * (1.3 + radius) / 1.6) * seen * np.sqrt(np.clip(1.25 - r, 0.1, 1))
    scene.mark(sign.finding, seen > 0.3)


def draw_edema(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Haze around the hila; fluid thickens the oblique fissure."""
    v = sign.visibility
    size = 4.5 + 2.2 * v
    haze(scene, sign.finding, patch(scene.canvas, rng, HILUM, (size, size * 1.2), 0.16, 1.7), 0.12 + 0.4 * v)
    y = np.array([chest.patient.top + 6.0, chest.base - 2.0])
    fissure = np.stack([np.array([5.0, -6.0]), y], axis=1)
    scene.lines.lines([fissure], [0.16 + 0.1 * v], [0.2 + 0.7 * v])
    scene.mark(sign.finding, (scene.canvas.lines([(fissure, 0.6)]) > 0.3) & (_lungs(scene) > 0.5))


def draw_consolidation(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """A dense patch on one side of the oblique fissure."""
    u, v = sign.traits, sign.visibility
    upper = u[1] < 0.35
    centre = _place(
        chest, 0.3 + 0.1 * u[2] if upper else 0.72 + 0.1 * u[2], 0.35 * u[3] if upper else 0.6 + 0.35 * u[3]
    )
    where = patch(scene.canvas, rng, centre, (2.8 + 2.0 * v + u[4], 2.6 + 1.6 * v), 0.12, 1.4)
    top, base = chest.patient.top, chest.base
    # The fissure runs from high behind to low in front; below it lies the lower lobe.
    below = (scene.canvas.y - (top + 6.0)) + (scene.canvas.x - 5.0) * np.float32((base - top - 8.0) / 11.0)
    where *= np.clip((-below if upper else below) / 0.5 + 0.5, 0, 1)
    haze(scene, sign.finding, where, 0.28 + 0.55 * v)


def draw_pneumonia(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """A cluster of ill-defined patches low in the lung."""
    u, v = sign.traits, sign.visibility
    total = np.zeros(scene.canvas.shape, dtype=np.float32)
    for _ in range(4):
        centre = _place(
            chest,
            0.55 + 0.25 * u[2] + 0.13 * rng.standard_normal(),
            float(np.clip(u[3] + 0.2 * rng.standard_normal(), 0, 1)),
        )
        radius = 1.2 + 1.2 * v + 0.6 * rng.random()
        total = np.maximum(total, patch(scene.canvas, rng, centre, (radius, radius), 0.45, 0.8, rim=1.2))
    haze(scene, sign.finding, total, 0.15 + 0.55 * v)


def draw_atelectasis(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Plates above a raised dome; :func:`reshape_lateral` has raised it."""
    u, v = sign.traits, sign.visibility
    x = -2.0 + 5.0 * u[3]
    y = float(floor(chest, sign.side, x)) - 1.2
    plate = np.array([(x - 2.5, y - 0.3), (x, y), (x + 2.5, y + 0.9 * u[5])])
    plates = scene.canvas.lines([(plate, 0.35 + 0.35 * v)], blur=0.1) * _lungs(scene)
    scene.body += np.float32(1.2 + 3.6 * v) * plates
    scene.mark(sign.finding, plates > 0.2)
    usual = replace(chest, lift=(0.0, 0.0))
    canvas = scene.canvas
    lifted = (canvas.y > floor(chest, sign.side, canvas.x)) & (canvas.y < floor(usual, sign.side, canvas.x))
    scene.mark(
        sign.finding, lifted & (canvas.x > front_wall(chest, canvas.y)) & (canvas.x < back_wall(chest, canvas.y))
    )


def draw_pneumothorax(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """A dark cap without vessels over the apex and behind the sternum, bounded by the pleural line."""
    v = sign.visibility
    top, base = chest.patient.top, chest.base
    y = np.linspace(top + 1.0 + 3.4 * v, base - 7, 12)
    x = front_wall(chest, y) + (0.4 + 2.4 * v) * np.linspace(1, 0.4, 12)
    rim = np.array([(float(back_wall(chest, y[0])) + 0.5, y[0] - 0.8)])
    edge = np.concatenate([rim, np.stack([x + 0.8, y], axis=1)])
    inside = np.concatenate([edge, [(float(x[-1]), base + 6), (14.0, base + 6), (14.0, y[0] - 0.8)]])
    lungs = _lungs(scene)
    free = lungs * (1 - scene.canvas.area([inside], blur=0.05)) * (scene.canvas.y < y[-1])
    scene.open *= 1 - free
    scene.air *= 1 + np.float32(0.08 + 0.18 * v) * free
    scene.lines.lines([edge], [0.16 + 0.1 * v], [0.3 + 0.7 * v])
    scene.mark(sign.finding, (free > 0.35) | ((scene.canvas.lines([(edge, 0.45)]) > 0.3) & (lungs > 0.3)))


def draw_effusion(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Fluid in the deep angle behind, climbing the back wall."""
    u, v = sign.traits, sign.visibility
    canvas = scene.canvas
    depth = 2.4 + 6.0 * v * (0.45 + 0.55 * u[2])
    back = np.clip((canvas.x + 8) / 17, 0, 1)
    surface = chest.base + 1.6 - depth + 1.2 - (1.2 + 0.3 * depth) * back**3
    wet = np.clip((canvas.y - surface) / 0.8 + 0.5, 0, 1) * _lungs(scene)
    scene.fill(np.float32(0.85) * wet)
    scene.mark(sign.finding, wet > 0.25)


def draw_pleural(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Thickened pleura along the back wall, sometimes along the front one."""
    u, v = sign.traits, sign.visibility
    y = np.linspace(chest.patient.top + 7 + 4 * u[2], chest.patient.top + 13 + 5 * u[3], 12)
    thick = (0.5 + 1.5 * v) * np.sin(np.linspace(0.15, 3.0, 12)) ** 0.6
    wall = front_wall(chest, y) if u[1] < 0.25 else back_wall(chest, y)
    inner = wall + thick if u[1] < 0.25 else wall - thick
    rind = scene.canvas.area([np.stack([np.r_[wall, inner[::-1]], np.r_[y, y[::-1]]], axis=1)], blur=0.1) * _lungs(
        scene
    )
    scene.body += np.float32(2.0 + 4.2 * v) * rind
    scene.mark(sign.finding, rind > 0.2)


def mark_fracture(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Mark the displaced piece of rib that :func:`reshape_lateral` has asked for."""
    rib, _, at, shift = reshape_lateral(chest, sign).breaks[-1]
    piece = side_ribs(chest)[rib][at : at + 4] + np.array([0.0, shift])
    scene.mark(sign.finding, scene.canvas.area([band(piece, 2.0)]) > 0.3)


LATERAL_SIGNS: dict[str, Draw] = {
    "Enlarged Cardiomediastinum": draw_widening,
    "Cardiomegaly": mark_heart,
    "Lung Opacity": draw_opacity,
    "Lung Lesion": draw_lesion,
    "Edema": draw_edema,
    "Consolidation": draw_consolidation,
    "Pneumonia": draw_pneumonia,
    "Atelectasis": draw_atelectasis,
    "Pneumothorax": draw_pneumothorax,
    "Pleural Effusion": draw_effusion,
    "Pleural Other": draw_pleural,
    "Fracture": mark_fracture,
}
