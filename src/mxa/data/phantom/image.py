"""One image of the phantom: a patient, a pose and findings in; grey values, masks and boxes out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mxa.data.phantom.anatomy import Patient, Pose, chest_of
from mxa.data.phantom.canvas import Canvas
from mxa.data.phantom.devices import draw_devices
from mxa.data.phantom.frontal import draw_frontal
from mxa.data.phantom.frontal_signs import FRONTAL_SIGNS, reshape_frontal
from mxa.data.phantom.lateral import draw_lateral
from mxa.data.phantom.lateral_signs import LATERAL_SIGNS, reshape_lateral
from mxa.data.phantom.render import expose
from mxa.data.phantom.scene import Scene
from mxa.data.phantom.signs import Sign
from mxa.data.phantom.statistics import FINDINGS, LUNG_OPACITY, OPACITIES
from mxa.labels import SUPPORT_DEVICES

Bools = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

# Specks of a mask below this fraction of the image are dropped: they have no box.
SPECK = 4e-4


@dataclass(frozen=True)
class Drawing:
    """A drawn image.

    Attributes:
        pixels: (H, W) uint8, bones white.
        masks: (H/2, W/2) bool by finding, for the findings drawn.
        boxes: (finding, x1, y1, x2, y2), relative to width and height, one for each connected part of a mask.
        heart: (H/2, W/2) bool, the heart.
        lungs: (H/2, W/2) bool, both lungs.
    """

    pixels: npt.NDArray[np.uint8]
    masks: dict[str, Bools]
    boxes: list[tuple[str, float, float, float, float]]
    heart: Bools
    lungs: Bools


def draw_image(patient: Patient, pose: Pose, signs: Sequence[Sign], size: int, seed: Sequence[int]) -> Drawing:
    """Draw one image.

    The background's randomness and each sign's come from separate streams: the same call with one sign less gives the
    same image without that sign.

    Args:
        patient: The body.
        pose: View, position, exposure.
        signs: The findings to draw; the order does not matter.
        size: The image's short side, pixels.
        seed: Integers that name the image.
    """
    by_name = {sign.finding: sign for sign in signs}
    lateral = pose.view == "L"
    chest = chest_of(patient, pose)
    ordered = [(j, by_name[finding]) for j, finding in enumerate(FINDINGS) if finding in by_name]
    for _, sign in ordered:
        chest = reshape_lateral(chest, sign) if lateral else reshape_frontal(chest, sign)
    canvas = Canvas(pose, size)
    rng = np.random.default_rng([*seed, 0])
    scene = (draw_lateral if lateral else draw_frontal)(chest, canvas, rng)
    table = LATERAL_SIGNS if lateral else FRONTAL_SIGNS
    for j, sign in ordered:
        draw = draw_devices if sign.finding == SUPPORT_DEVICES else table[sign.finding]
        draw(sign, chest, scene, np.random.default_rng([*seed, j]))
    _burn_in(pose, scene, rng)
    offset = rng.integers(0, 512, 2)
    pixels = expose(scene, pose, patient.bone, (int(offset[0]), int(offset[1])))
    parts = _parts(scene.masks)
    masks = {finding: mask for finding, (mask, _) in parts.items()}
    boxes = [(finding, *box) for finding, (_, found) in parts.items() for box in found]
    lungs = np.maximum(scene.lungs[0], scene.lungs[1]) > 0.5
    return Drawing(pixels, masks, boxes, scene.heart > 0.5, lungs)


def parts_of(mask: Bools) -> tuple[Bools, list[Box]]:
    """Split a mask into its connected parts (diagonals connect).

    Args:
        mask: (h, w) bool.

    Returns:
        The mask without specks, and (x1, y1, x2, y2) of each part that is left, relative to width and height.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    large = np.bincount(labels.ravel(), minlength=count + 1) >= max(SPECK * mask.size, 2)
    large[0] = False
    clean = mask if large[1:].all() else large[labels]
    h, w = mask.shape
    spans = [span for span, keep in zip(ndimage.find_objects(labels), large[1:], strict=True) if keep]
    return clean, [(x.start / w, y.start / h, x.stop / w, y.stop / h) for y, x in spans]


def _parts(raw: dict[str, Bools]) -> dict[str, tuple[Bools, list[Box]]]:
    """Split all masks; Lung Opacity gets the areas of the opacities that it is the parent of."""
    parent = FINDINGS[LUNG_OPACITY]
    merged = dict(raw)
    areas = [raw[name] for name in (parent, *(FINDINGS[j] for j in OPACITIES)) if name in raw]
    if areas:
        merged[parent] = np.logical_or.reduce(areas)
    return {finding: parts_of(merged[finding]) for finding in FINDINGS if finding in merged}


# Letters as polylines in a unit square, so that no font is needed.
_GLYPHS = {
    "L": [(0.0, 0.0), (0.0, 1.0), (0.6, 1.0)],
    "R": [(0.0, 1.0), (0.0, 0.0), (0.5, 0.05), (0.6, 0.25), (0.5, 0.5), (0.0, 0.52), (0.25, 0.52), (0.65, 1.0)],
    "A": [(0.0, 1.0), (0.3, 0.0), (0.6, 1.0), (0.48, 0.62), (0.12, 0.62)],
    "P": [(0.0, 1.0), (0.0, 0.0), (0.5, 0.05), (0.6, 0.25), (0.5, 0.5), (0.0, 0.52)],
    "T": [(0.0, 0.0), (0.6, 0.0), (0.3, 0.0), (0.3, 1.0)],
    "I": [(0.3, 0.0), (0.3, 1.0)],
}


def _burn_in(pose: Pose, scene: Scene, rng: np.random.Generator) -> None:
    """Draw the side marker, and on some films a few small letters; neither depends on any finding."""
    u = rng.random(8).tolist()
    half = 0.5 * pose.field * np.array([max(pose.aspect, 1.0), max(1 / pose.aspect, 1.0)])
    side = 1 if u[0] < 0.7 else -1
    at = np.array(pose.shift) + half * (side * (0.80 + 0.12 * u[1]), -0.88 + 0.25 * u[2])
    _write(scene, "L" if side > 0 or pose.view == "L" else "R", at, 1.1 + 0.5 * u[3], 0.2, 0.7 + 0.3 * u[4])
    if u[5] < 0.35:
        words = ("AP", "PA", "TILT", "AP") if pose.view != "L" else ("LAT", "LT", "LAT", "LL")
        at = np.array(pose.shift) + half * (-side * (0.78 + 0.1 * u[6]), -0.9 + 0.2 * u[7])
        _write(scene, words[int(4 * u[6])], at, 0.75, 0.12, 0.6)


def _write(scene: Scene, word: str, at: npt.NDArray[np.float64], height: float, stroke: float, value: float) -> None:
    for k, letter in enumerate(word):
        points = (np.array(_GLYPHS[letter]) + np.array([0.9 * k, 0])) * height + at
        scene.metal.lines([points], [stroke], [value])
