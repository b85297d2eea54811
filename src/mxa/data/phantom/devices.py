"""Support devices in both views: tubes, lines, pacemakers, electrodes, sternal wires."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mxa.data.phantom.anatomy import Chest, open_curve
from mxa.data.phantom.lateral import back_wall, floor, front_wall
from mxa.data.phantom.scene import Scene
from mxa.data.phantom.signs import Sign

Points = npt.NDArray[np.floating]
# (points, width in cm, opacity in [0, 1])
Stroke = tuple[Points, float, float]
Traits = npt.NDArray[np.float64]

# Which devices a study has: (name, chance on a bedside film, chance on an upright one).
_CHANCES = (
    ("airway", 0.30, 0.0),
    ("feeding", 0.32, 0.04),
    ("central", 0.45, 0.25),
    ("pacemaker", 0.15, 0.35),
    ("electrodes", 0.45, 0.12),
    ("drain", 0.18, 0.12),
    ("sternal", 0.18, 0.25),
)


def draw_devices(sign: Sign, chest: Chest, scene: Scene, rng: np.random.Generator) -> None:
    """Draw and mark a study's devices; the lateral view shows the same ones."""
    lateral = chest.pose.view == "L"
    table = LATERAL if lateral else FRONTAL
    strokes: list[Stroke] = []
    for name in chosen(sign):
        strokes += table[name](chest, sign)
    contrast = 0.3 + 0.7 * sign.visibility
    for points, width, value in strokes:
        scene.metal.lines([points], [width], [value * contrast])
    scene.mark(
        sign.finding, scene.canvas.lines([(points, max(width, 0.35) + 0.1) for points, width, _ in strokes]) > 0.2
    )


def chosen(sign: Sign) -> list[str]:
    """Return the names of a study's devices, at least one."""
    upright = sign.traits[1] < 0.35
    picked = [name for k, (name, bed, up) in enumerate(_CHANCES) if sign.traits[2 + k] < (up if upright else bed)]
    if picked:
        return picked
    return [("central", "electrodes", "pacemaker")[int(3 * sign.traits[9])]]


def _airway(chest: Chest, sign: Sign) -> list[Stroke]:
    top = chest.patient.top
    tip = top + 5.0 + 2.5 * sign.traits[10]
    line = np.array([(0.1, top - 20), (0.05, top - 2), (0.2, (top + tip) / 2), (0.3, tip)])
    return [(line, 1.0, 0.1), (line + np.array([0.35, 0]), 0.16, 0.5)]


def _feeding(chest: Chest, sign: Sign) -> list[Stroke]:
    top, base = chest.patient.top, chest.base
    knots = [
        (-0.4, top - 20),
        (-0.3, top),
        (0.5, top + 8),
        (0.9, base - 5),
        (2.2, base - 1),
        (5.0 + 2 * sign.traits[10], base + 2.5),
    ]
    line = open_curve(knots, 5)
    return [(line, 0.42, 0.14), (line, 0.13, 0.42)]


def _central(chest: Chest, sign: Sign) -> list[Stroke]:
    top, u = chest.patient.top, sign.traits
    end = [(-2.3, top + 6.0), (-2.5, top + 10.5 + 2 * u[11])]
    if u[10] < 0.4:
        start = [(-3.8, top - 6), (-3.0, top)]
    elif u[10] < 0.7:
        start = [(-19.0, top + 9), (-14.0, top + 3.2), (-7.0, top + 2.8)]
    else:
        start = [(17.0, top + 5), (9.0, top + 2.2), (3.0, top + 3.6)]
    line = open_curve(start + end, 6)
    return [(line, 0.24, 0.5)]


def _pacemaker(chest: Chest, sign: Sign) -> list[Stroke]:
    top, u = chest.patient.top, sign.traits
    side = 1 if u[10] < 0.85 else -1
    x, y = side * (9.0 + 1.5 * u[11]), top + 5.2
    box = np.array([(x - 1.1, y), (x + 1.1, y)])
    heart = chest.heart
    tip = (float(heart[:, 0].max()) - 1.8, float(heart[:, 1].max()) - 1.6)
    lead = open_curve(
        [(x, y - 1), (side * 5.0, top + 2.6), (-1.6, top + 6), (-2.6, top + 12), (-1.2, tip[1] - 1.0), tip], 6
    )
    strokes = [(box, 3.4, 0.95), (lead, 0.2, 0.5)]
    if u[12] < 0.6:
        atrial = open_curve(
            [
                (x, y - 0.8),
                (side * 5.0, top + 3.0),
                (-1.3, top + 6),
                (-2.4, top + 12),
                (-3.2, top + 13.2),
                (-3.0, top + 12),
            ],
            5,
        )
        strokes.append((atrial, 0.18, 0.45))
    if u[13] < 0.4:
        strokes.append((lead[-9:-2], 0.42, 0.8))  # a defibrillator's coil
    return strokes


def _electrodes(chest: Chest, sign: Sign) -> list[Stroke]:
    top, u = chest.patient.top, sign.traits
    strokes: list[Stroke] = []
    for k in range(3 + int(2 * u[10])):
        x = (-9.5, 9.5, 8.5, -8.0, 1.0)[k] + 2.5 * (u[(11 + k) % 16] - 0.5)
        y = top + (4.5, 4.5, 18.0, 18.0, 12.0)[k] + 3 * (u[(12 + k) % 16] - 0.5)
        wave = open_curve([(x, y), (x * 0.75 + 1.5 * (u[k] - 0.5), y + 5), (x * 0.5 + 2, y + 10), (x * 0.6, 40.0)], 6)
        strokes += [(wave, 0.12, 0.34), (np.array([(x - 0.3, y), (x + 0.3, y)]), 0.75, 0.6)]
    return strokes


def _drain(chest: Chest, sign: Sign) -> list[Stroke]:
    top, u, side = chest.patient.top, sign.traits, sign.side
    y = top + 15 + 3 * u[10]
    wall = float(chest.wall(y))
    up = (wall * 0.45, top + 4.0 + 4 * u[11]) if u[12] < 0.6 else (4.5, chest.base - 5)
    line = open_curve(
        [(side * (wall + 8), y + 4), (side * (wall + 0.4), y), (side * (wall - 2.2), y - 2.5), (side * up[0], up[1])], 7
    )
    return [(line, 0.75, 0.1), (line + np.array([0.2, 0]), 0.17, 0.5)]


def _sternal(chest: Chest, sign: Sign) -> list[Stroke]:
    ring = np.linspace(0, 2 * np.pi, 9)
    loop = np.stack([0.75 * np.cos(ring), 0.42 * np.sin(ring)], axis=1)
    turn = 0.8 * chest.pose.turn
    return [(loop + np.array([turn, chest.patient.top + 5.5 + 2.4 * k]), 0.18, 1.0) for k in range(6)]


def _airway_side(chest: Chest, sign: Sign) -> list[Stroke]:
    top = chest.patient.top
    line = np.array([(-1.3, top - 12), (-0.5, top - 1), (0.8, top + 5.0 + 2 * sign.traits[10])])
    return [(line, 0.9, 0.1), (line + np.array([0.3, 0]), 0.16, 0.5)]


def _feeding_side(chest: Chest, sign: Sign) -> list[Stroke]:
    top = chest.patient.top
    line = open_curve([(0.8, top - 12), (1.6, top + 2), (3.2, top + 12), (2.4, chest.base - 4), (-2.0, chest.base)], 6)
    return [(line, 0.42, 0.14), (line, 0.13, 0.42)]


def _central_side(chest: Chest, sign: Sign) -> list[Stroke]:
    top = chest.patient.top
    return [(open_curve([(-1.0, top - 8), (-1.6, top + 3), (-0.6, top + 8), (-0.2, top + 11.5)], 5), 0.24, 0.36)]


def _pacemaker_side(chest: Chest, sign: Sign) -> list[Stroke]:
    top = chest.patient.top
    front = float(front_wall(chest, top + 6)) - 0.6
    box = np.array([(front, top + 4.2), (front - 0.7, top + 7.4)])
    end = (float(front_wall(chest, 5.0)) + 3.0, float(floor(chest, 1, -5.0)) - 2.2)
    lead = open_curve([(front, top + 5), (-2.4, top + 3), (-1.0, top + 8), (-0.8, top + 13), end], 6)
    return [(box, 0.9, 0.95), (lead, 0.2, 0.5)]


def _electrodes_side(chest: Chest, sign: Sign) -> list[Stroke]:
    top = chest.patient.top
    x = float(front_wall(chest, top + 8)) - 1.2
    return [
        (open_curve([(x, top + 7), (x + 2.5, top + 13), (x + 1.0, 40.0)], 6), 0.12, 0.34),
        (np.array([(x, top + 6.8), (x, top + 7.4)]), 0.7, 0.6),
    ]


def _drain_side(chest: Chest, sign: Sign) -> list[Stroke]:
    top = chest.patient.top
    back = float(back_wall(chest, top + 8))
    line = open_curve([(-3.0, top + 18), (0.5, top + 14), (back - 2.5, top + 8), (back - 3.5, top + 4)], 6)
    return [(line, 0.75, 0.1), (line + np.array([0.2, 0]), 0.17, 0.5)]


def _sternal_side(chest: Chest, sign: Sign) -> list[Stroke]:
    y = chest.patient.top + 6.0 + 2.3 * np.arange(6)
    x = front_wall(chest, y) - 0.7
    return [(np.array([(a - 0.6, b), (a + 0.6, b + 0.25)]), 0.16, 0.55) for a, b in zip(x, y, strict=True)]


Device = Callable[[Chest, Sign], list[Stroke]]
FRONTAL: dict[str, Device] = {
    "airway": _airway,
    "feeding": _feeding,
    "central": _central,
    "pacemaker": _pacemaker,
    "electrodes": _electrodes,
    "drain": _drain,
    "sternal": _sternal,
}
LATERAL: dict[str, Device] = {
    "airway": _airway_side,
    "feeding": _feeding_side,
    "central": _central_side,
    "pacemaker": _pacemaker_side,
    "electrodes": _electrodes_side,
    "drain": _drain_side,
    "sternal": _sternal_side,
}
