"""Boxes, marked regions and maps on one grid over the picture.

Places are in [0, 1] of the picture's width and height, so that the picture counts as a square whatever its aspect; IoU
and shares of area are the same in either. Pixel (i, j) of a grid of side G covers [j / G, (j + 1) / G) of the width and
[i / G, (i + 1) / G) of the height.

Shapes: N regions, K boxes or points for each of them, G the grid's side.
"""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from mxa.evaluation.metrics import BoolArray, FloatArray

GRID = 256
"""Side of the grid unless told: a pixel is smaller than one of the network's input."""
BLOCK = 64
"""Regions that are worked on at once."""
_ROUNDING = 1e-9


def blocks(count: int) -> Iterator[slice]:
    """Slices of at most :data:`BLOCK` that cover ``count`` rows."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def areas(boxes: FloatArray) -> FloatArray:
    """Boxes (..., 4) -> shares of the picture (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def centres(boxes: FloatArray) -> FloatArray:
    """Boxes (..., 4) -> their middles x, y (..., 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def shared_area(first: FloatArray, second: FloatArray) -> FloatArray:
    """Area of the intersection of boxes (..., 4), broadcast."""
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    return np.asarray(np.maximum(high - low, 0.0).prod(axis=-1))


def iou(shared: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """Area of the intersection over that of the union, from the areas; 0 where both are empty."""
    union = first + second - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def area_inside(masks: BoolArray, boxes: FloatArray) -> FloatArray:
    """Area of the boxes that is marked, exactly: a pixel that an edge cuts counts by the part of it inside.

    The integral of a mask is bilinear within each pixel, so that reading it at a box's four corners leaves no error.

    Args:
        masks: (N, G, G).
        boxes: (N, K, 4) in [0, 1].

    Returns:
        (N, K) shares of the picture.
    """
    grid = masks.shape[-1]
    found = np.empty(boxes.shape[:2])
    for part in blocks(len(masks)):
        integral = np.zeros((len(masks[part]), grid + 1, grid + 1), dtype=np.int32)
        np.cumsum(masks[part], axis=1, dtype=np.int32, out=integral[:, 1:, 1:])
        np.cumsum(integral, axis=2, out=integral)
        x1, y1, x2, y2 = np.moveaxis(boxes[part] * grid, -1, 0)
        found[part] = (
            _read(integral, x2, y2) - _read(integral, x1, y2) - _read(integral, x2, y1) + _read(integral, x1, y1)
        )
    return found / grid**2


def _read(integral: "np.ndarray[tuple[int, ...], np.dtype[np.int32]]", x: FloatArray, y: FloatArray) -> FloatArray:
    """Integrals (n, G + 1, G + 1) between their nodes, at x and y (n, K) in pixels."""
    count, side = integral.shape[:2]
    column, row = (np.minimum(at.astype(np.int64), side - 2) for at in (x, y))
    right, down = x - column, y - row
    flat = integral.ravel()
    first = np.arange(count)[:, None] * side**2 + row * side + column
    above = flat[first] * (1 - right) + flat[first + 1] * right
    below = flat[first + side] * (1 - right) + flat[first + side + 1] * right
    return np.asarray(above * (1 - down) + below * down)


def tight_boxes(masks: BoolArray) -> FloatArray:
    """The smallest box around the marked pixels of each mask (N, G, G), at least one each: (N, 4)."""
    grid = masks.shape[-1]
    low, high = [], []
    for axis in (1, 2):  # columns, then rows
        marked = np.asarray(masks.any(axis=axis))
        low.append(marked.argmax(axis=1))
        high.append(grid - marked[:, ::-1].argmax(axis=1))
    return np.stack([*low, *high], axis=1) / grid


def marked_at(masks: BoolArray, points: FloatArray) -> BoolArray:
    """Whether points (N, K, 2) x, y lie in marked pixels of the masks (N, G, G): (N, K).

    A point between pixels belongs to the right and lower one, at the picture's edge to the last.
    """
    grid = masks.shape[-1]
    column, row = np.moveaxis(np.minimum((points * grid).astype(np.int64), grid - 1), -1, 0)
    return masks[np.arange(len(masks))[:, None], row, column]


def widen(masks: BoolArray, radius: float) -> BoolArray:
    """Masks (N, G, G), at least one pixel each, with all pixels whose centre is within a distance of a marked one's.

    Args:
        masks: what is marked.
        radius: of the picture's width, which counts for its height too.
    """
    distance = radius * masks.shape[-1]
    return np.stack([ndimage.distance_transform_edt(~mask) <= distance for mask in masks])


def render(maps: FloatArray, windows: FloatArray, grid: int) -> FloatArray:
    """Interpolate maps bilinearly at the centres of the grid's pixels.

    A value stands at the centre of its cell; between the outermost centres and the window's edge it stays. What lies
    outside the picture is not drawn, and the picture outside the window is 0.

    Args:
        maps: (K, h, w).
        windows: (K, 4) left, top, right, bottom of the map; may reach outside the picture.
        grid: G.

    Returns:
        (K, G, G).
    """
    left, top, right, bottom = windows.T
    down = _weights(top, bottom, maps.shape[1], grid)
    across = _weights(left, right, maps.shape[2], grid)
    return np.asarray(down @ maps @ across.swapaxes(1, 2))


def _weights(low: FloatArray, high: FloatArray, cells: int, grid: int) -> FloatArray:
    """(K, G, cells) how much each cell counts at each pixel along one axis; all 0 outside the window."""
    place = ((np.arange(grid) + 0.5) / grid - low[:, None]) / (high - low)[:, None]
    position = np.clip(place * cells - 0.5, 0, cells - 1)
    weights = np.maximum(1 - np.abs(position[..., None] - np.arange(cells)), 0.0)
    return np.asarray(weights * ((place >= 0) & (place < 1))[..., None])


def peaks(values: FloatArray, anchors: FloatArray) -> FloatArray:
    """Where each grid is highest: of all pixels that share the highest value, the one nearest to the anchor.

    Args:
        values: (K, G, G), at least 0; rounding is no difference.
        anchors: (K, 2) x, y; of pixels equally near the first counts, row by row.

    Returns:
        (K, 2) x, y of the pixels' centres.
    """
    grid = values.shape[-1]
    middle = (np.arange(grid) + 0.5) / grid
    far = (middle - anchors[:, 1:])[:, :, None] ** 2 + (middle - anchors[:, :1])[:, None, :] ** 2
    highest = values >= values.max(axis=(1, 2), keepdims=True) * (1 - _ROUNDING)
    row, column = np.divmod(np.where(highest, far, np.inf).reshape(len(values), -1).argmin(axis=1), grid)
    return np.stack([middle[column], middle[row]], axis=1)
