"""The findings' signs in the frontal view."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mxa.data.phantom.anatomy import Chest, closed_curve
from mxa.data.phantom.frontal import CLAVICLE, band, clavicle_line, rib_lines
from mxa.data.phantom.scene import Scene
from mxa.data.phantom.signs import Sign, disc, haze, patch, spot

Floats = npt.NDArray[np.float32]
Draw = Callable[[Sign, Chest, Scene, np.random.Generator], None]


def reshape_frontal(chest: Chest, sign: Sign) -> Chest:
    """Change the anatomy for a finding of shape; other findings leave it as it is."""
    u, v = sign.traits, sign.visibility
    if sign.finding == "Cardiomegaly":
        return replace(chest, ratio=0.52 + 0.15 * v + 0.02 * u[1])
    if sign.finding == "Enlarged Cardiomediastinum":
        return replace(chest, neck=chest.neck + 0.7 + 2.1 * v)
    if sign.finding == "Atelectasis":
        lift = (0.6 + 3.4 * v) * (0.5 + 0.5 * u[1])
        right, left = chest.lift
        return replace(chest, lift=(right + lift, left) if sign.side < 0 else (right, left + lift))
    if sign.finding == "Fracture":
        return replace(chest, breaks=chest.breaks + _breaks(sign))
    return chest


def _breaks(sign: Sign) -> tuple[tuple[int, int, int, float], ...]:
    u, v = sign.traits, sign.visibility
    shift = (0.35 + 1.45 * v) * (1 if u[1] < 0.5 else -1)
    if u[2] < 0.2:
        return ((CLAVICLE, sign.side, 5 + int(3 * u[3]), 1.2 * shift),)
    first, count = 2 + int(5 * u[3]), 1 + int(1.6 * v + 1.4 * u[4])
    return tuple((first + k, sign.side, 5 + int(5 * u[5]), shift) for k in range(count))


def mark_widening(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Mark the upper mediastinum; :func:`reshape_frontal` has widened it."""
    top = chest.patient.top
    scene.mark(
        sign.finding,
        (scene.canvas.area([closed_curve(chest.mediastinum, 3)]) > 0.5)
        & (scene.canvas.y > top)
        & (scene.canvas.y < top + 13),
    )


def mark_heart(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Mark the heart; :func:`reshape_frontal` has enlarged it."""
    scene.mark(sign.finding, scene.heart > 0.5)


def draw_opacity(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """An unspecific focal haze, unless another opacity is there to be it."""
    if not sign.alone:
        return
    u, v = sign.traits, sign.visibility
    centre = spot(chest, sign.side, 0.25 + 0.6 * u[1], 0.25 + 0.6 * u[2])
    radius = 2.2 + 1.6 * u[3] + 1.2 * v
    where = patch(scene.canvas, rng, centre, (radius, radius * (0.7 + 0.6 * u[4])), 0.25, 2.0, 3 * u[5])
    haze(scene, sign.finding, where, 0.14 + 0.42 * v)


def draw_lesion(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """One to four round nodules or a mass, some of them calcified."""
    u, v = sign.traits, sign.visibility
    for k in range(1 + int(3.6 * u[3] ** 2.5)):
        side = sign.side if k == 0 else int(rng.choice([-1, 1]))
        centre = spot(
            chest,
            side,
            0.15 + 0.7 * (u[1] if k == 0 else rng.random()),
            0.15 + 0.75 * (u[2] if k == 0 else rng.random()),
        )
        radius = 0.6 + 1.3 * v + 1.0 * u[4] * v
        r = disc(scene.canvas, centre, (radius, radius * (0.85 + 0.3 * u[5])), 3 * u[6])
        r = r * (1 + 0.12 * scene.canvas.clouds((int(512 * u[7]), 90 * k), 0.8))
        dense = (0.7 + 2.4 * v) * (1.6 if u[8] < 0.2 else 1.0)
        seen = np.clip((1.15 - np.sqrt(r)) / 0.3, 0, 1) * np.clip(scene.lungs[0] + scene.lungs[1], 0, 1)
        scene.body += np.float32(dense * (1.3 + radius) / 1.6) * seen * np.sqrt(np.clip(1.25 - r, 0.1, 1))
        scene.mark(sign.finding, seen > 0.3)


def draw_edema(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Haze spreading from both hila, thick upper vessels, short septal lines at the sides of the bases."""
    u, v = sign.traits, sign.visibility
    wings = np.zeros(scene.canvas.shape, dtype=np.float32)
    for side in (-1, 1):
        size = 4.2 + 2.6 * v + 0.8 * u[1 + (side > 0)]
        wings = np.maximum(wings, patch(scene.canvas, rng, (side * 5.2, 1.0), (size, size * 1.35), 0.16, 1.7))
    haze(scene, sign.finding, wings, 0.12 + 0.4 * v)
    septa, vessels = [], []
    for side in (-1, 1):
        for k in range(5):
            y = chest.base - 2.5 - 1.0 * k - 0.4 * rng.random()
            x = float(chest.wall(y)) - 0.2
            septa.append(np.array([(side * x, y), (side * (x - 1.3 - 0.5 * rng.random()), y - 0.15)]))
        for k in range(3):
            end = (side * (5.5 + 1.8 * k), chest.patient.top + 4.0 + 1.8 * k)
            vessels.append(np.array([(side * 3.6, -2.2), (side * (4.6 + 0.6 * k), -4.4 + 0.8 * k), end]))
    scene.lines.lines(septa, [0.14] * len(septa), [0.15 + 0.7 * v] * len(septa))
    scene.lines.lines(vessels, [0.55] * len(vessels), [0.15 + 0.5 * v] * len(vessels))
    # All lines of one side are one sign.
    fields = [
        np.array([(s * (float(chest.wall(y)) - 1.0), y) for y in (chest.base - 2.2, chest.base - 7.2)]) for s in (-1, 1)
    ]
    strokes = [(line, 2.2) for line in fields] + [(line, 0.9) for line in vessels]
    scene.mark(sign.finding, scene.canvas.lines(strokes) > 0.3)


def draw_consolidation(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """A dense patch that stops at the fissure, with air-filled bronchi in it."""
    u, v = sign.traits, sign.visibility
    canvas, side = scene.canvas, sign.side
    upper = u[1] < 0.35
    centre = spot(chest, side, 0.27 + 0.1 * u[2] if upper else 0.66 + 0.14 * u[2], 0.3 + 0.4 * u[3])
    radii = (2.8 + 2.2 * v + u[4], 2.4 + 1.7 * v + 0.8 * u[5])
    where = patch(canvas, rng, centre, radii, 0.12, 1.4)
    # The fissure: a nearly level edge below an upper lobe, above a lower one.
    fissure = (
        chest.patient.top + 10.5 + 0.15 * np.abs(canvas.x)
        if upper
        else chest.patient.top + 11.0 - 0.1 * np.abs(canvas.x)
    )
    where *= np.clip((fissure - canvas.y if upper else canvas.y - fissure) / 0.35 + 0.5, 0, 1)
    paths = []
    for k in range(4):
        heading = np.arctan2(centre[1] - 0.0, side * (centre[0] - side * 3.2)) + 0.32 * (k - 1.5)
        steps = np.linspace(0, 1, 5)[:, None] * np.hypot(radii[0], radii[1]) * 1.3
        bend = np.stack([np.cos(heading + 0.1 * steps[:, 0] / 3), np.sin(heading + 0.1 * steps[:, 0] / 3)], axis=1)
        paths.append(((np.array([3.2, 0.0]) + bend * steps) * (side, 1), 0.38))
    bronchi = canvas.lines(paths, blur=0.06)
    haze(scene, sign.finding, where, 0.3 + 0.6 * v)
    scene.body -= np.float32(0.4 + 1.6 * v) * bronchi * (where > 0.5)


def draw_pneumonia(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """A cluster of ill-defined patches, mostly low in the lung, sometimes on both sides."""
    u, v = sign.traits, sign.visibility
    sides = (-1, 1) if u[1] < 0.3 else (sign.side,)
    total = np.zeros(scene.canvas.shape, dtype=np.float32)
    for side in sides:
        low, out = 0.5 + 0.3 * u[2], 0.25 + 0.5 * u[3]
        for _ in range(5):
            centre = spot(
                chest,
                side,
                low + 0.17 * rng.standard_normal(),
                float(np.clip(out + 0.25 * rng.standard_normal(), 0, 1)),
            )
            radius = 1.2 + 1.3 * v + 0.6 * rng.random()
            total = np.maximum(total, patch(scene.canvas, rng, centre, (radius, radius), 0.45, 0.8, rim=1.2))
    haze(scene, sign.finding, total, 0.16 + 0.62 * v)


def draw_atelectasis(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Plate-like bands above a raised diaphragm; :func:`reshape_frontal` has raised it."""
    u, v = sign.traits, sign.visibility
    canvas, side = scene.canvas, sign.side
    bands = []
    for k in range(1 + int(2.5 * u[2])):
        x = 4.0 + 3.0 * u[3]
        length = 2.8 + 3.0 * u[4] + 1.5 * v
        y = float(chest.dome(side, x + length / 2)) - 1.1 - 1.5 * k
        tilt = -0.9 + 1.6 * u[5] + 0.4 * k
        bands.append(
            (
                np.array(
                    [(side * x, y), (side * (x + length / 2), y + tilt / 2 - 0.2), (side * (x + length), y + tilt)]
                ),
                0.35 + 0.5 * v,
            )
        )
    plates = canvas.lines(bands, blur=0.09) * np.clip(scene.lungs[0] + scene.lungs[1], 0, 1)
    scene.body += np.float32(0.9 + 4.6 * v) * plates
    scene.mark(sign.finding, plates > 0.2)
    usual = replace(chest, lift=(0.0, 0.0))
    lifted = (canvas.y > chest.dome(side, np.abs(canvas.x))) & (canvas.y < usual.dome(side, np.abs(canvas.x)))
    scene.mark(sign.finding, lifted & (side * canvas.x > 1.5) & (np.abs(canvas.x) < chest.wall(canvas.y)))


def draw_pneumothorax(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Air outside the lung: darker, without vessels, bounded by the thin pleural line; widest at the apex."""
    u, v = sign.traits, sign.visibility
    top, base, side = chest.patient.top, chest.base, sign.side
    gap_top, gap_side = 1.0 + 4.4 * v + 0.8 * u[1], 0.35 + 3.0 * v * (0.4 + 0.6 * u[2])
    end = base - 1.0 - (1 - v) * 8.0 * u[3]
    s = np.linspace(0, 1, 16)
    y = top + gap_top + s * (end - top - gap_top)
    # At its top the lung's edge turns inwards, below it follows the wall.
    lung_wall = chest.wall(top + s * (end - top)) - gap_side * (1 - 0.75 * s**2)
    edge = np.stack([side * np.maximum(lung_wall, 1.4), y], axis=1)
    inside = np.concatenate(
        [
            edge,
            [(side * float(chest.wall(end)), end), (side * float(chest.wall(end)), base + 4), (0, base + 4), (0, y[0])],
        ]
    )
    free = scene.lungs[0 if side < 0 else 1] * (1 - scene.canvas.area([inside], blur=0.05))
    free *= scene.canvas.y < end + 0.5
    scene.open *= 1 - free
    scene.air *= 1 + np.float32(0.10 + 0.28 * v) * free
    scene.lines.lines([edge], [0.16 + 0.1 * v], [0.3 + 0.7 * v])
    scene.mark(
        sign.finding,
        (free > 0.35) | ((scene.canvas.lines([(edge, 0.45)]) > 0.3) & (scene.lungs[0 if side < 0 else 1] > 0.3)),
    )


def draw_effusion(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Fluid at the base that climbs the side wall: the meniscus; on one side or both."""
    u, v = sign.traits, sign.visibility
    for k, side in enumerate((sign.side, -sign.side) if u[1] < 0.4 else (sign.side,)):
        x = np.abs(scene.canvas.x)
        depth = (1.0 + 6.5 * v * (0.45 + 0.55 * u[2])) * (1.0 if k == 0 else 0.5 + 0.4 * u[3])
        level = chest.base - depth
        out = np.clip((x - 2.0) / (chest.wall(chest.base - depth) - 2.0), 0, 1)
        surface = level + 1.1 + 0.45 * depth * 0.3 - (1.3 + 0.45 * depth) * out**3.5
        wet = np.clip((scene.canvas.y - surface) / 0.7 + 0.5, 0, 1) * scene.lungs[0 if side < 0 else 1]
        # Behind the thin upper rim there is still lung.
        wet *= np.clip(0.45 + (scene.canvas.y - surface) / 2.5, 0, 1)
        scene.fill(np.float32(0.96) * wet)
        scene.mark(sign.finding, wet > 0.25)


def draw_pleural(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Thickened pleura along the side wall, or a cap on the apex, with flecks of calcium."""
    u, v = sign.traits, sign.visibility
    top, canvas, side = chest.patient.top, scene.canvas, sign.side
    cap = u[1] < 0.25
    start = top + 0.2 if cap else top + 7 + 5 * u[2]
    y = np.linspace(start, start + (4.5 if cap else 5 + 4 * u[3]), 12)
    thick = (
        (0.45 + 1.65 * v) * np.sin(np.linspace(0.15, 3.0, 12)) ** 0.6 * (1 + 0.35 * np.sin(9 * u[4] + np.arange(12)))
    )
    y = np.minimum(y, chest.base + 0.3)
    wall = chest.wall(y) + 0.1
    outline = np.stack([np.r_[wall, (wall - thick)[::-1]] * side, np.r_[y, y[::-1]]], axis=1)
    rind = canvas.area([outline], blur=0.1) * scene.lungs[0 if side < 0 else 1]
    scene.body += np.float32(1.6 + 4.0 * v) * rind
    scene.open *= 1 - rind
    scene.mark(sign.finding, rind > 0.2)
    if u[5] < 0.6:
        _flecks(sign, chest, scene, rng, float(y.mean()))


def _flecks(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator, y: float) -> None:
    """Draw calcified plaques: small, bright, irregular."""
    plaques = []
    for _ in range(4):
        at = min(y + 3.0 * rng.standard_normal(), chest.base - 1.0)
        x = float(chest.wall(at)) - 0.5 - 2.2 * rng.random()
        plaques.append((np.array([(sign.side * x, at), (sign.side * (x - 0.3), at + 0.5 + 0.5 * rng.random())]), 0.35))
    calcium = scene.canvas.lines(plaques, blur=0.05) * scene.lungs[0 if sign.side < 0 else 1]
    scene.body += np.float32(1.0 + 3.5 * sign.visibility) * calcium
    scene.mark(sign.finding, calcium > 0.25)


def mark_fracture(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Mark the breaks that :func:`reshape_frontal` has made, and add the bruise around them."""
    ribs, spots = rib_lines(chest), []
    for rib, side, at, shift in _breaks(sign):
        line = clavicle_line(chest, side) if rib == CLAVICLE else ribs[0 if side < 0 else 1, rib]
        centre = (float(line[at, 0]), float(line[at, 1]))
        bruise = np.exp(-disc(scene.canvas, centre, (1.2, 0.9)))
        scene.body += np.float32(0.5 + 4.5 * sign.visibility) * bruise
        # The outer piece is out of line as a whole, so all of it is the sign.
        moved = line[at:] + np.array([0.0, shift / 2])
        spots.append(scene.canvas.area([band(moved, chest.patient.rib_width + abs(shift) + 0.2)]) > 0.3)
        spots.append(disc(scene.canvas, centre, (1.3, 1.1)) < 1)
    for one in spots:
        scene.mark(sign.finding, one)


FRONTAL_SIGNS: dict[str, Draw] = {
    "Enlarged Cardiomediastinum": mark_widening,
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
