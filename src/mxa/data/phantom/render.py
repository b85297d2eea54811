"""From thickness to grey: attenuation, scatter, noise and the display curve."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from mxa.data.phantom.anatomy import Pose
from mxa.data.phantom.canvas import TILE, Canvas, grain_tile, smooth
from mxa.data.phantom.scene import Scene

Floats = npt.NDArray[np.float32]

# Effective attenuation at about 100 kV, per cm; the bone map is in units of 1.5 cm, the metal map in opaque marks.
SOFT = 0.2
BONE = 0.62
METAL = 2.6
VESSEL = 0.30
LINE = 0.22


def expose(scene: Scene, pose: Pose, bone: float, offset: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Turn a scene into a radiograph.

    Args:
        scene: Thickness maps.
        pose: Exposure, scatter and noise.
        bone: The patient's bone density, 1 is normal.
        offset: Where to cut the grain from its tile.

    Returns:
        (H, W) uint8, dense tissue white.
    """
    canvas = scene.canvas
    path = canvas.enlarge(np.float32(SOFT) * (scene.body - scene.air))
    seen = canvas.enlarge(scene.open)
    detail = np.zeros_like(path)
    scene.bone.lay_over(scene.extra_bone)
    scene.bone.add_to(detail, BONE * bone)
    scene.vessels.add_to(detail, VESSEL, seen)
    scene.lines.add_to(detail, LINE)
    scene.metal.add_to(detail, METAL)
    path += smooth(detail) if canvas.scale > 5 else detail
    # In place from here on: these are the image's largest arrays.
    signal = np.exp(np.negative(path, out=path), out=path)
    signal += _scatter(signal, pose.scatter, canvas)
    rows = (np.arange(signal.shape[0]) + offset[0]) % TILE
    columns = (np.arange(signal.shape[1]) + offset[1]) % TILE
    noise = grain_tile().take(rows, axis=0).take(columns, axis=1)
    # Quanta: noise is the square root of the signal, so the dense parts are the grainy ones on a film.
    noise *= np.float32(0.004 * pose.noise)
    noise *= np.sqrt(signal)
    signal += noise
    density = np.log(np.maximum(signal, np.float32(1e-4), out=signal), out=signal)
    # A film's curve: steep in the lungs, flat in air and in the abdomen.
    density += np.float32(2.15 + pose.level)
    density *= np.float32(-0.62 * pose.gain)
    grey = np.tanh(density, out=density)
    grey += 1
    grey *= np.float32(125.6)
    return grey.astype(np.uint8)


def _scatter(primary: Floats, ratio: float, canvas: Canvas) -> Floats:
    """Return a broad blur of the primary image, (2h, 2w); every fourth row and column is enough to carry it."""
    # The blur works on bytes; a square root keeps the dark parts apart.
    small = (255 * np.sqrt(np.minimum(primary[2::4, 2::4], 1))).astype(np.uint8)
    root = Image.fromarray(small).filter(ImageFilter.GaussianBlur(float(1.1 * canvas.scale / 4)))
    wide = np.asarray(root.resize((canvas.shape[1], canvas.shape[0]), Image.Resampling.BILINEAR), dtype=np.float32)
    return canvas.enlarge(np.float32(ratio / 255**2) * wide * wide)
