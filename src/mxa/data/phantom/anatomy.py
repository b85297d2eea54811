"""A patient's body and a study's pose: all that is random about an image apart from its findings.

Lengths are centimetres. Frontal view: x runs from the patient's right (image left) to left, 0 at the spine; y runs
down, the lung apices lie near -12 and the lowest lung margin near +11. Lateral view: x runs from the sternum (-) to
the back (+); y as in the frontal view.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

RIBS = 10
_TWIGS = 2
_BRANCHES = 9


@dataclass(frozen=True)
class Patient:
    """What a patient keeps from study to study.

    Attributes:
        sex: "Male" or "Female".
        age: Age at the first study, years.
        half_width: Greatest inner half width of the rib cage.
        top: y of the lung apices.
        height: From the apices to the lowest lung margin in full inspiration.
        depth: Thickness of the body at the midline, front to back.
        fat: Thickness of the soft tissue outside the ribs.
        ratio: Heart width over inner thorax width, below 0.5.
        knob: Radius of the aortic knob, grows with age.
        neck: Half width of the upper mediastinum.
        dome: (2,), heights of the right and left diaphragm domes.
        breast: Thickness of the breasts, 0 for none.
        breast_y: y of the breasts' centre.
        bone: Bone density, falls with age.
        rib_pitch: Distance between ribs at the spine.
        rib_slope: Drop of the posterior ribs from spine to side.
        rib_width: Width of the ribs.
        clavicle: Rise of the clavicles from the sternum outwards.
        kyphosis: Bend of the spine in the lateral view, grows with age.
        scoliosis: Sideways bend of the spine.
        vessels: (2, M, 4, 2), polylines of the right and left vessel trees from the hila.
        vessel_widths: (M,), their widths.
    """

    sex: str
    age: int
    half_width: float
    top: float
    height: float
    depth: float
    fat: float
    ratio: float
    knob: float
    neck: float
    dome: tuple[float, float]
    breast: float
    breast_y: float
    bone: float
    rib_pitch: float
    rib_slope: float
    rib_width: float
    clavicle: float
    kyphosis: float
    scoliosis: float
    vessels: Floats
    vessel_widths: Floats


@dataclass(frozen=True)
class Pose:
    """What changes from image to image: position, breath, exposure.

    Attributes:
        view: "AP", "PA" or "L".
        aspect: Width over height of the image.
        field: Length of the image's short side at the patient.
        shift: (2,), position of the image's centre.
        angle: Rotation in the image plane, radians.
        turn: Rotation about the long axis: how far the front structures move sideways.
        breath: Inspiration in [0, 1]; lowers the diaphragm.
        gain: Exposure: contrast of the display curve.
        level: Exposure: brightness of the display curve, in attenuation.
        noise: Relative quantum noise.
        scatter: Scattered over primary radiation.
        scapulae: How far the shoulder blades overlie the lungs, in [0, 1].
    """

    view: str
    aspect: float
    field: float
    shift: tuple[float, float]
    angle: float
    turn: float
    breath: float
    gain: float
    level: float
    noise: float
    scatter: float
    scapulae: float


def draw_patient(rng: np.random.Generator, sex: str, age: int) -> Patient:
    """Draw a body of the given sex and age (years)."""
    male = sex == "Male"
    old = float(np.clip((age - 40) / 45, 0, 1))
    # Python floats: a NumPy double would turn every float32 map that it meets into doubles.
    u = rng.random(20).tolist()
    n = np.clip(rng.standard_normal(8), -2, 2).tolist()
    fat = 1.2 + 3.0 * u[0] ** 1.5
    width = (14.2 if male else 12.9) + 0.6 * n[0]
    vessels, widths = _vessel_trees(rng)
    return Patient(
        sex=sex,
        age=age,
        half_width=width,
        top=-12.0 + 0.5 * n[1],
        height=(23.5 if male else 21.8) + 0.8 * n[2],
        depth=(19.5 if male else 18.5) + 1.6 * (fat - 2.0),
        fat=fat,
        ratio=0.40 + 0.075 * u[1] + 0.015 * old,
        knob=1.5 + 0.3 * u[2] + 0.8 * old,
        neck=2.6 + 0.5 * u[3] + 0.4 * old,
        dome=(2.6 + 1.2 * u[4], 2.4 + 1.2 * u[4]),
        breast=0.0 if male and fat < 3 else (0.5 + u[5] if male else 1.2 + 3.2 * u[5]),
        breast_y=4.5 + 2.0 * u[6] + 1.5 * old,
        bone=(1.1 if male else 1.0) - 0.4 * old + 0.1 * n[3],
        rib_pitch=2.15 + 0.12 * n[4],
        rib_slope=2.2 + 2.6 * u[7],
        rib_width=1.15 + 0.2 * u[8],
        clavicle=1.0 + 1.8 * u[9],
        kyphosis=0.6 + 0.8 * u[10] + 1.6 * old * u[11],
        scoliosis=0.5 * n[5] * (0.5 + old),
        vessels=vessels,
        vessel_widths=widths,
    )


def draw_pose(rng: np.random.Generator, view: str) -> Pose:
    """Draw pose and exposure of one image; portable AP films are rotated, shallow in breath and grainy more often."""
    bedside = view == "AP"
    u = rng.random(16).tolist()
    n = np.clip(rng.standard_normal(8), -2, 2).tolist()
    loose = 1.0 if bedside else 0.5
    wide = (1.22, 1.0, 0.82) if bedside else (0.82, 1.0, 1.22)
    return Pose(
        view=view,
        aspect=0.82 if view == "L" else wide[0 if u[0] < 0.62 else 1 if u[0] < 0.75 else 2],
        field=(27.5 if view == "L" else 31.0) + 3.5 * u[1],
        shift=(0.9 * loose * n[0], 0.8 * loose * n[1] + 0.3),
        angle=0.035 * loose * n[2],
        turn=0.7 * loose * n[3],
        breath=0.15 + 0.6 * u[2] if bedside else 0.5 + 0.5 * u[2],
        gain=0.85 + 0.4 * u[3],
        level=0.35 * n[4],
        noise=(0.5 + u[4]) * (1.3 if bedside else 1.0),
        scatter=(0.06 + 0.1 * u[5]) * (1.3 if bedside else 1.0),
        scapulae=0.5 + 0.5 * u[6] if bedside else 0.25 * u[6],
    )


@dataclass(frozen=True)
class Chest:
    """The outlines of a chest in the frontal view: a patient in a pose, possibly changed by a finding.

    Attributes:
        patient: The body.
        pose: The pose.
        ratio: Heart width over inner thorax width.
        neck: Half width of the upper mediastinum.
        lift: (2,), how far the right and left domes stand above their usual height.
        breaks: Broken ribs as (rib, side, point along it, displacement).
    """

    patient: Patient
    pose: Pose
    ratio: float
    neck: float
    lift: tuple[float, float] = (0.0, 0.0)
    breaks: tuple[tuple[int, int, int, float], ...] = ()

    @property
    def base(self) -> float:
        """The y of the costophrenic angles."""
        return self.patient.top + self.patient.height - 3.0 * (1 - self.pose.breath)

    @functools.cached_property
    def _span(self) -> float:
        return self.base + 2.0 - self.patient.top

    def wall(self, y: npt.ArrayLike) -> Floats:
        """Return the inner half width of the rib cage at height y."""
        s = np.clip((np.asarray(y, dtype=np.float32) - self.patient.top) / self._span, 0, 1)
        return (self.patient.half_width * np.sqrt(1 - (1 - s) ** 2.7)).astype(np.float32)

    def dome(self, side: int, x: npt.ArrayLike) -> Floats:
        """Return the y of the diaphragm at distance x from the midline; side is -1 for the right, 1 for the left."""
        a = np.asarray(x, dtype=np.float32)
        half = float(self.wall(self.base))
        peak = 0.47 * half
        low = np.where(a > peak, (a - peak) / (half - peak), 0.62 * (peak - a) / peak)
        right = side < 0
        rise = self.patient.dome[0 if right else 1] + self.lift[0 if right else 1]
        offset = 0.9 if not right else 0.0
        return (self.base + offset * (1 - low**2) - rise * (1 - low**2.0)).astype(np.float32)

    @functools.cached_property
    def heart(self) -> Floats:
        """(40, 2) closed outline of the heart; its width is ``ratio`` times the inner thorax width."""
        width = 2 * float(self.wall(self.base - 2)) * self.ratio
        right = [(-0.19, -0.66), (-0.31, -0.32), (-0.37, 0.1), (-0.3, 0.48)]
        left = [(0.1, 0.62), (0.5, 0.5), (0.64, 0.22), (0.54, -0.15), (0.3, -0.5), (0.1, -0.72)]
        knots = np.array(right + left)
        outline = closed_curve(knots, 4)
        outline[:, 0] /= np.ptp(outline[:, 0])
        floor = self.base - 0.55 * (self.patient.dome[0] + self.patient.dome[1]) / 2
        tall = min(11.5, 7.0 + 0.28 * width)
        outline = outline * np.array([width, tall / 1.34])
        outline[:, 1] += floor - outline[:, 1].max() + 0.6
        outline[:, 0] += 0.35 * self.pose.turn
        return outline.astype(np.float32)

    @functools.cached_property
    def mediastinum(self) -> Floats:
        """(K, 2) closed outline of the upper mediastinum with the aortic knob."""
        p = self.patient
        top, neck, turn = p.top, self.neck, 0.35 * self.pose.turn
        knob = top + 6.2
        left = neck + 0.25 + 0.55 * p.knob
        right = [(-1.9, top - 5), (-0.85 * neck, top + 1), (-neck, top + 5), (-0.95 * neck, top + 8.5)]
        # Below the hila it tapers into the heart, however wide it is above.
        waist = [(-0.58 * p.neck - 0.34 * neck, top + 11), (-0.5 * p.neck, top + 14), (0.6 * p.neck, top + 15)]
        pulmonary = [(0.7 * p.neck + 0.5 * neck, top + 11), (1.12 * neck, top + 8.7)]
        aorta = [(0.98 * left, knob + 0.8), (left, knob), (0.9 * left, knob - 1.1), (0.85 * neck, knob - 2.4)]
        points = np.array([*right, *waist, *pulmonary, *aorta, (0.8 * neck, top + 1), (1.9, top - 5)], dtype=np.float32)
        points[:, 0] += turn
        return points

    def lung(self, side: int) -> Floats:
        """(K, 2) closed outline of one lung; side is -1 for the patient's right."""
        return self._lungs[0 if side < 0 else 1]

    @functools.cached_property
    def _lungs(self) -> tuple[Floats, Floats]:
        return self._lung(-1), self._lung(1)

    def _lung(self, side: int) -> Floats:
        top, half = self.patient.top, float(self.wall(self.base))
        inner = 1.2
        s = np.linspace(0, 1, 22) ** 1.7
        y = top + s * (self.base - top)
        outer = np.stack([np.maximum(self.wall(y), inner), y], axis=1)
        x = np.linspace(half, inner, 16)
        floor = np.stack([x, self.dome(side, x)], axis=1)
        outline = np.concatenate([outer, floor, [[inner, top + 1.0], [2.2, top + 0.1]]])
        return (outline * np.array([side, 1])).astype(np.float32)


def chest_of(patient: Patient, pose: Pose) -> Chest:
    """Return the normal chest of a patient in a pose."""
    return Chest(patient, pose, ratio=patient.ratio, neck=patient.neck)


def closed_curve(knots: npt.ArrayLike, steps: int) -> npt.NDArray[np.float64]:
    """Run a smooth closed curve (Catmull-Rom) through (K, 2) knots; returns (K * steps, 2)."""
    return _curve(np.asarray(knots, dtype=np.float64), steps, closed=True)


def open_curve(knots: npt.ArrayLike, steps: int) -> npt.NDArray[np.float64]:
    """Run a smooth open curve (Catmull-Rom) through (K, 2) knots; returns ((K - 1) * steps + 1, 2)."""
    return _curve(np.asarray(knots, dtype=np.float64), steps, closed=False)


@functools.cache
def _curve_weights(knots: int, steps: int, closed: bool) -> npt.NDArray[np.float64]:
    """Return the matrix that turns knots into curve points; it depends on their numbers alone."""
    t = np.arange(steps) / steps
    weights = (
        np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1) / 2
    )
    pieces = knots if closed else knots - 1
    out = np.zeros((pieces * steps + (0 if closed else 1), knots))
    for piece in range(pieces):
        for j in range(4):
            k = (piece + j - 1) % knots if closed else min(max(piece + j - 1, 0), knots - 1)
            out[piece * steps : (piece + 1) * steps, k] += weights[:, j]
    if not closed:
        out[-1, -1] = 1.0
    return out


def _curve(knots: npt.NDArray[np.float64], steps: int, closed: bool) -> npt.NDArray[np.float64]:
    out: npt.NDArray[np.float64] = _curve_weights(len(knots), steps, closed) @ knots
    return out


def _vessel_trees(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Grow both vessel trees: branches from the hilum, two twigs from each, two more from each of these."""
    trees = []
    for side in (-1, 1):
        fan = np.linspace(-1.35, 1.5, _BRANCHES) + 0.12 * rng.standard_normal(_BRANCHES)
        start = np.array([3.3, -1.2]) + 0.5 * rng.standard_normal((_BRANCHES, 2))
        levels = [_grow(rng, start, fan, 4.2)]
        for length in (3.4, 2.6):
            parent = np.repeat(levels[-1], _TWIGS, axis=0)
            at = np.where(np.arange(len(parent)) % 2 == 0, 3, 2)
            ends = parent[np.arange(len(parent)), at]
            heading = np.arctan2(*(parent[:, 3] - parent[:, 1]).T[::-1])
            fork = np.where(np.arange(len(parent)) % 2 == 0, 0.3, -0.45) * rng.choice([-1, 1], len(parent))
            levels.append(_grow(rng, ends, heading + fork + 0.15 * rng.standard_normal(len(parent)), length))
        trees.append(np.concatenate(levels) * np.array([side, 1]))
    widths = np.concatenate([np.full(_BRANCHES * _TWIGS**k, w) for k, w in enumerate((0.52, 0.32, 0.2))])
    # Branches to the bases are thicker than those to the apices in an upright patient.
    widths *= np.clip(0.85 + 0.03 * trees[0][:, :, 1].mean(axis=1), 0.6, 1.1)
    return np.stack(trees).astype(np.float32), widths.astype(np.float32)


def _grow(
    rng: np.random.Generator, start: npt.NDArray[np.float64], heading: npt.NDArray[np.float64], length: float
) -> npt.NDArray[np.float64]:
    """Draw gently bent polylines of four points from start points (n, 2) and headings (n,)."""
    n = len(heading)
    turn = heading[:, None] + np.cumsum(0.16 * rng.standard_normal((n, 3)), axis=1)
    step = length / 3 * (0.7 + 0.6 * rng.random((n, 1)))
    moves = np.stack([step * np.cos(turn), step * np.sin(turn)], axis=2)
    return np.concatenate([start[:, None], start[:, None] + np.cumsum(moves, axis=1)], axis=1)
