"""How well a box, a point or a map meets a marked region.

The measures, each a number in [0, 1] per case:

* ``iou``: area of the intersection with the marked region over that of the union. Of a map: of the part of the picture
  where it is at least half of its maximum.
* ``tight_iou``: the same with the tight box of the region. Boxes only.
* ``hit``: 1 where the point lies in the region. The point of a box is its centre, that of a map its maximum.
* ``pointing``: 1 where it lies within 15 of 224 pixels of the region: the pointing game of Zhang et al., "Top-down
  Neural Attention by Excitation Backprop", IJCV 2018, with its tolerance. Distances are those in the picture as a
  square.
* ``inside``: share of the box that is marked (precision). Of a map: share of its sum that is marked, the energy-based
  pointing game of Wang et al., "Score-CAM", CVPR workshops 2020. A box counts as a map that is even inside it.
* ``covered``: share of the region that the box covers (recall). Boxes only.

A map speaks for its finding where it is positive, so its positive part is scored, interpolated bilinearly, and only
where there is picture: as with boxes, what reaches beyond its edges is cut off. Its maximum is the highest pixel of the
grid; of several, the one nearest to the centre of the map's largest cell (the first of them, row by row). A constant
map and one that is nowhere positive cannot point and miss. An empty box (all of it lay beyond the picture's edge)
scores 0 in everything.
"""

from dataclasses import dataclass

import numpy as np

from mxa.evaluation.localisation.geometry import (
    area_inside,
    areas,
    centres,
    iou,
    marked_at,
    peaks,
    render,
    shared_area,
    tight_boxes,
    widen,
)
from mxa.evaluation.metrics import BoolArray, FloatArray

MEASURES = ("iou", "tight_iou", "hit", "pointing", "inside", "covered")
TOLERANCE = 15 / 224
"""How far from the region the pointing game still takes a point, of the picture's width."""
_SAME = 1e-6
_ROUNDING = 1e-9

Scores = dict[str, FloatArray]
"""Measure to its values, all of one shape."""


@dataclass(frozen=True, eq=False)
class Regions:
    """N marked regions. Make them with :meth:`of`.

    Attributes:
        masks: (N, G, G) bool.
        near: (N, G, G) bool, the masks widened by :data:`TOLERANCE`.
        area: (N,) share of the picture.
        tight: (N, 4) tight boxes.
    """

    masks: BoolArray
    near: BoolArray
    area: FloatArray
    tight: FloatArray

    @classmethod
    def of(cls, masks: BoolArray) -> "Regions":
        """Regions of masks (N, G, G) with at least one marked pixel each."""
        return cls(masks, widen(masks, TOLERANCE), masks.mean(axis=(1, 2)), tight_boxes(masks))

    def __len__(self) -> int:
        return len(self.masks)

    def take(self, rows: "slice | np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> "Regions":
        """Some of them."""
        return Regions(self.masks[rows], self.near[rows], self.area[rows], self.tight[rows])


@dataclass(frozen=True, eq=False)
class Drawn:
    """K maps on the grid.

    Attributes:
        share: (K, G * G) float64, the positive part as shares of its sum over the picture; all 0 where there is none.
        half: (K, G * G) bool, True where it is at least half of its maximum; nowhere where there is none.
        points: (K, 2) x, y of the maximum.
        nowhere: (K,) bool, True where a map is constant or nowhere positive.
    """

    share: FloatArray
    half: BoolArray
    points: FloatArray
    nowhere: BoolArray


def draw(maps: FloatArray, windows: FloatArray, grid: int) -> Drawn:
    """Draw maps (K, h, w) that cover windows (K, 4) of the picture."""
    positive = np.maximum(maps, 0.0)
    values = render(positive, windows, grid)
    points = peaks(values, _largest_cells(positive, windows))
    flat = values.reshape(len(maps), -1)
    highest, total = flat.max(axis=1, keepdims=True), flat.sum(axis=1, keepdims=True)
    share = np.divide(flat, total, out=np.zeros_like(flat), where=total > 0)
    half = (flat >= highest / 2 * (1 - _ROUNDING)) & (highest > 0)
    top, bottom = positive.max(axis=(1, 2)), positive.min(axis=(1, 2))
    return Drawn(share, half, points, (top - bottom <= _SAME * top) | (highest[:, 0] <= 0))


def _largest_cells(maps: FloatArray, windows: FloatArray) -> FloatArray:
    """(K, 2) centres of the maps' largest cells in the picture."""
    count, height, width = maps.shape
    row, column = np.divmod(maps.reshape(count, -1).argmax(axis=1), width)
    place = np.stack([(column + 0.5) / width, (row + 0.5) / height], axis=1)
    return np.asarray(windows[:, :2] + place * (windows[:, 2:] - windows[:, :2]))


def score_boxes(regions: Regions, boxes: FloatArray) -> Scores:
    """All measures of boxes (N, K, 4), K for each of N regions: (N, K) each."""
    size, region = areas(boxes), regions.area[:, None]
    inside = area_inside(regions.masks, boxes)
    tight = regions.tight[:, None]
    points = score_points(regions, centres(boxes), size <= 0)
    return {
        "iou": iou(inside, size, region),
        "tight_iou": iou(shared_area(boxes, tight), size, areas(tight)),
        **points,
        "inside": np.divide(inside, size, out=np.zeros_like(size), where=size > 0),
        "covered": inside / region,
    }


def score_points(regions: Regions, points: FloatArray, nowhere: BoolArray | None = None) -> Scores:
    """``hit`` and ``pointing`` of points (N, K, 2), K for each of N regions: (N, K) each.

    Args:
        regions: N.
        points: x, y in [0, 1].
        nowhere: broadcast to (N, K), True where there is no point and it misses.
    """
    found = {}
    for name, masks in (("hit", regions.masks), ("pointing", regions.near)):
        marked = marked_at(masks, points)
        found[name] = (marked if nowhere is None else marked & ~nowhere).astype(np.float64)
    return found


def score_maps(regions: Regions, drawn: Drawn) -> Scores:
    """``iou``, ``hit``, ``pointing`` and ``inside`` of each of K maps with each of N regions: (N, K) each."""
    masks = regions.masks.reshape(len(regions), -1)
    pixels = masks.shape[1]
    # Counts of up to 2 ** 24 pixels are exact in float32, at half the time.
    shared = (masks.astype(np.float32) @ drawn.half.T.astype(np.float32)).astype(np.float64) / pixels
    points = np.broadcast_to(drawn.points, (len(regions), *drawn.points.shape))
    return {
        "iou": iou(shared, regions.area[:, None], drawn.half.mean(axis=1)),
        **score_points(regions, points, drawn.nowhere),
        "inside": masks.astype(np.float64) @ drawn.share.T,
    }
