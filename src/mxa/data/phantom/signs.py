"""What every sign is drawn from: its strength, its study's traits, and the soft shapes that signs share.

Visibility of a drawn finding, in (0, 1]: ``0.12 + 0.88 * u**0.55`` with u uniform, so the median is 0.72, a quarter
of the findings lie under 0.53 and one in ten under 0.37; from 0.3 down a sign is barely visible. Findings that the
report calls uncertain have 0.6 times that. Contrast and size of each sign grow with its visibility; exposure is drawn
apart from all findings.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mxa.data.phantom.anatomy import Chest
from mxa.data.phantom.canvas import Canvas
from mxa.data.phantom.scene import Scene

Floats = npt.NDArray[np.float32]

UNCERTAIN_VISIBILITY = 0.6
TRAITS = 16


@dataclass(frozen=True)
class Sign:
    """One finding of one study.

    Attributes:
        finding: Its name.
        visibility: In (0, 1], see the module's docstring.
        traits: (16,) uniform in [0, 1): side, place and size, the same in all views of the study.
        alone: For "Lung Opacity": whether no other opacity is drawn, so that it needs a sign of its own.
    """

    finding: str
    visibility: float
    traits: tuple[float, ...]
    alone: bool = True

    @property
    def side(self) -> int:
        """-1 for the patient's right, 1 for the left."""
        return -1 if self.traits[0] < 0.5 else 1


def draw_visibility(rng: np.random.Generator, uncertain: bool) -> float:
    """Draw how visible a finding is, in (0, 1]."""
    visibility = 0.12 + 0.88 * rng.random() ** 0.55
    return float(visibility * (UNCERTAIN_VISIBILITY if uncertain else 1.0))


def disc(canvas: Canvas, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> Floats:
    """Return (h, w): the squared distance from an ellipse's centre in units of its radii (1 on the ellipse)."""
    dx, dy = canvas.x - np.float32(centre[0]), canvas.y - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    out: Floats = ((dx * cos + dy * sin) / np.float32(radii[0])) ** 2 + (
        (dy * cos - dx * sin) / np.float32(radii[1])
    ) ** 2
    return out


def patch(
    canvas: Canvas,
    rng: np.random.Generator,
    centre: tuple[float, float],
    radii: tuple[float, float],
    rough: float,
    cell: float,
    angle: float = 0.0,
    rim: float = 0.7,
) -> Floats:
    """Return (h, w) in [0, 1]: a patch of haze.

    Args:
        canvas: The pixel grids.
        rng: Its texture.
        centre: Centimetres.
        radii: Centimetres.
        rough: How ragged: 0 is a smooth ellipse.
        cell: Size of its clumps, centimetres.
        angle: Radians.
        rim: Width of the fading border, in radii.
    """
    offset = rng.integers(0, 512, 2)
    clumps = canvas.clouds((int(offset[0]), int(offset[1])), cell)
    r = disc(canvas, centre, radii, angle)
    # Falls to 0 at 1.3 radii; the clumps move that border.
    out: Floats = np.clip((1.3 - np.sqrt(r) + rough * clumps) / rim, 0, 1).astype(np.float32)
    out *= r < 3
    return out


def haze(scene: Scene, finding: str, where: Floats, strength: float) -> None:
    """Turn ``where`` (h, w) in [0, 1] times ``strength`` of the lungs' air into fluid, and mark it."""
    seen = where * np.clip(scene.lungs[0] + scene.lungs[1], 0, 1)
    scene.fill(seen * np.float32(strength))
    scene.mark(finding, seen > 0.25)


def spot(chest: Chest, side: int, down: float, out: float) -> tuple[float, float]:
    """Return a place in a lung, frontally: ``down`` from apex to base, ``out`` from hilum to wall, both in [0, 1]."""
    y = chest.patient.top + down * (chest.base - chest.patient.top)
    wall = float(chest.wall(y))
    x = 3.0 + out * max(wall - 4.0, 0.5)
    lowest = float(chest.dome(side, x)) - 1.0
    return side * x, min(y, lowest)
