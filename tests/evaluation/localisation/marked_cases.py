"""Cases to score, and plain loops over pixels that say what each score must be."""

import math

import numpy as np

from mxa.evaluation.localisation import Located


def rectangle(grid, x1, y1, x2, y2):
    """A mask with the pixels from x1, y1 to before x2, y2 marked."""
    mask = np.zeros((grid, grid), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def blobs(rng, count, grid):
    """Random masks: scattered pixels around a place, never empty."""
    masks = np.zeros((count, grid, grid), dtype=bool)
    for mask in masks:
        y, x = rng.integers(0, grid, 2)
        near = np.hypot(*(np.indices((grid, grid)) - np.array([y, x])[:, None, None])) < rng.uniform(0.02, 0.5) * grid
        mask[near & (rng.random((grid, grid)) < 0.7)] = True
        mask[y, x] = True
    return masks


def random_boxes(rng, *shape):
    """Boxes with edges anywhere in [0, 1]."""
    return np.sort(rng.random((*shape, 2, 2)), axis=-2).reshape(*shape, 4)


def simulate(seed=0, *, images=12, patients=8, grid=16, maps=True, blocks=("0.blocks.0", "0.blocks.1", "1.blocks.0")):
    """Images of some patients with one to three of the findings A, B, C; boxes are the same for an image's cases."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, patients, images)
    of_image = [[f for f in "ABC" if rng.random() < 0.6] or ["A"] for _ in range(images)]
    rows = [(i, finding) for i, found in enumerate(of_image) for finding in found]
    image = np.array([i for i, _ in rows])
    return Located(
        paths=tuple(f"{i}.png" for i in image),
        patients=tuple(f"p{of[i]}" for i in image),
        findings=tuple(finding for _, finding in rows),
        single=np.array([len(of_image[i]) == 1 for i in image]),
        regions=tuple(blobs(rng, len(rows), grid)),
        boxes={f"stages.{name}": random_boxes(rng, images)[image] for name in blocks},
        maps=rng.normal(size=(len(rows), 4, 4)) if maps else None,
        windows=np.array([[-0.2, 0, 1.2, 1], [0, 0, 1, 1], [0, 0.1, 1, 0.9]])[image % 3] if maps else None,
    )


def cut(low, high, cell, grid):
    """Length that [low, high] shares with a cell."""
    return max(0.0, min(high, (cell + 1) / grid) - max(low, cell / grid))


def box_scores(mask, box):
    """All measures of one box and one mask, pixel by pixel."""
    grid = len(mask)
    x1, y1, x2, y2 = (float(v) for v in box)
    size = (x2 - x1) * (y2 - y1)
    marked = [(i, j) for i in range(grid) for j in range(grid) if mask[i, j]]
    inside = sum(cut(x1, x2, j, grid) * cut(y1, y2, i, grid) for i, j in marked)
    region = len(marked) / grid**2
    tight = (
        min(j for _, j in marked) / grid,
        min(i for i, _ in marked) / grid,
        (max(j for _, j in marked) + 1) / grid,
        (max(i for i, _ in marked) + 1) / grid,
    )
    width = max(0.0, min(x2, tight[2]) - max(x1, tight[0]))
    height = max(0.0, min(y2, tight[3]) - max(y1, tight[1]))
    tight_size = (tight[2] - tight[0]) * (tight[3] - tight[1])
    shown = point_scores(mask, ((x1 + x2) / 2, (y1 + y2) / 2))
    return {
        "iou": inside / (size + region - inside),
        "tight_iou": width * height / (size + tight_size - width * height),
        **({"hit": 0.0, "pointing": 0.0} if size == 0 else shown),
        "inside": inside / size if size else 0.0,
        "covered": inside / region,
    }


def point_scores(mask, point):
    """Hit, and hit within 15 of 224 pixels, between centres of pixels."""
    grid = len(mask)
    column, row = (min(math.floor(v * grid), grid - 1) for v in point)
    distance = min(math.hypot(i - row, j - column) for i, j in np.argwhere(mask).tolist())
    return {"hit": float(mask[row, column]), "pointing": float(distance / grid <= 15 / 224)}


def between(values, place):
    """A list read at a place counted in its entries; before the first and after the last it stays."""
    place = min(max(place, 0), len(values) - 1)
    low = min(math.floor(place), len(values) - 2) if len(values) > 1 else 0
    return values[low] if len(values) == 1 else values[low] + (place - low) * (values[low + 1] - values[low])


def drawn(values, window, grid):
    """The positive part of a map, bilinear at each pixel's centre, pixel by pixel; 0 outside its window."""
    left, top, right, bottom = (float(v) for v in window)
    positive = np.maximum(np.asarray(values, dtype=float), 0)
    height, width = positive.shape
    picture = np.zeros((grid, grid))
    for i in range(grid):
        for j in range(grid):
            u, v = ((j + 0.5) / grid - left) / (right - left), ((i + 0.5) / grid - top) / (bottom - top)
            if 0 <= u < 1 and 0 <= v < 1:
                rows = [between(row.tolist(), u * width - 0.5) for row in positive]
                picture[i, j] = between(rows, v * height - 0.5)
    return picture


def highest_pixel(picture, values, window):
    """Row and column; of several, the one nearest to the centre of the largest cell, the first in reading order."""
    cell = divmod(int(values.argmax()), values.shape[1])
    y, x = (
        window[1 - axis] + (cell[axis] + 0.5) / values.shape[axis] * (window[3 - axis] - window[1 - axis])
        for axis in (0, 1)
    )
    grid = len(picture)
    tied = [(i, j) for i in range(grid) for j in range(grid) if picture[i, j] >= picture.max() - 1e-12]
    return min(tied, key=lambda at: round(math.hypot((at[0] + 0.5) / grid - y, (at[1] + 0.5) / grid - x), 12))


def map_scores(mask, values, window):
    """All measures of one map and one mask, pixel by pixel."""
    grid = len(mask)
    picture = drawn(values, window, grid)
    top, total = picture.max(), picture.sum()
    row, column = highest_pixel(picture, np.asarray(values), window)
    half = [(i, j) for i in range(grid) for j in range(grid) if top > 0 and picture[i, j] >= top / 2]
    both = sum(bool(mask[i, j]) for i, j in half)
    points = top > 0 and len(set(np.maximum(values, 0).ravel().tolist())) > 1
    shown = point_scores(mask, ((column + 0.5) / grid, (row + 0.5) / grid))
    return {
        "iou": both / (len(half) + int(mask.sum()) - both),
        **(shown if points else {"hit": 0.0, "pointing": 0.0}),
        "inside": sum(picture[i, j] for i, j in np.argwhere(mask)) / total if total else 0.0,
    }
