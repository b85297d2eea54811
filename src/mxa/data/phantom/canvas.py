"""A drawing surface in centimetres: polygons and strokes become thickness maps on two pixel grids.

Soft structures live on a grid of half the image's resolution, which is what keeps an image in the milliseconds;
bones, vessels, tubes and other fine lines are drawn on the full grid.
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mxa.data.phantom.anatomy import Pose

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.floating]

TILE = 512


class Canvas:
    """The pixel grids of one image and the ways to draw on them.

    Attributes:
        size: (width, height) of the full grid, pixels.
        shape: (h, w) of the half grid.
        scale: Pixels per centimetre on the full grid.
        x: (h, w), centimetres at the half grid's pixel centres.
        y: (h, w), likewise.
    """

    def __init__(self, pose: Pose, short: int) -> None:
        width, height = (short, round(short / pose.aspect)) if pose.aspect < 1 else (round(short * pose.aspect), short)
        # An even size gives the half grid whole pixels.
        self.size = (width + width % 2, height + height % 2)
        self.shape = (self.size[1] // 2, self.size[0] // 2)
        self.scale = short / pose.field
        cos, sin = np.cos(pose.angle), np.sin(pose.angle)
        self._turn = np.array([[cos, sin], [-sin, cos]]) * self.scale
        self._move = np.array(self.size) / 2 - np.asarray(pose.shift) @ self._turn
        back = np.linalg.inv(self._turn)
        columns = 2 * np.arange(self.shape[1]) + 1 - self._move[0]
        rows = 2 * np.arange(self.shape[0])[:, None] + 1 - self._move[1]
        self.x = (columns * back[0, 0] + rows * back[1, 0]).astype(np.float32)
        self.y = (columns * back[0, 1] + rows * back[1, 1]).astype(np.float32)

    def pixels(self, points: Points) -> npt.NDArray[np.float64]:
        """Map (..., 2) centimetres to pixels of the full grid."""
        out: npt.NDArray[np.float64] = points @ self._turn + self._move
        return out

    def area(self, outlines: Iterable[Points], blur: float = 0.0) -> Floats:
        """Fill closed outlines; returns (h, w) in [0, 1] on the half grid, softened by ``blur`` cm (one sigma)."""
        image = Image.new("L", (self.shape[1], self.shape[0]))
        draw = ImageDraw.Draw(image)
        for outline in outlines:
            draw.polygon((self.pixels(outline) / 2 - 0.5).ravel().tolist(), fill=255)
        return self._soften(image, blur * self.scale / 2)

    def lines(self, paths: Iterable[tuple[Points, float]], blur: float = 0.0) -> Floats:
        """Draw (points, width in centimetres) strokes on the half grid; returns (h, w) in [0, 1]."""
        image = Image.new("L", self.size)
        draw = ImageDraw.Draw(image)
        for points, width in paths:
            draw.line(self.pixels(points).ravel().tolist(), fill=255, width=self.pen(width))
        return self._soften(image.reduce(2), blur * self.scale / 2)

    def fine(self) -> "Fine":
        """Return an empty layer of the full grid."""
        return Fine(self)

    def pen(self, width: float) -> int:
        """Return a line width in whole pixels, at least one."""
        return max(1, round(width * self.scale))

    def enlarge(self, half: Floats) -> Floats:
        """Bring a half grid map to the full grid, (2h, 2w), by bilinear interpolation."""
        h, w = half.shape
        near, far = np.float32(0.75) * half, np.float32(0.25) * half
        wide = np.empty((h, 2 * w), dtype=np.float32)
        wide[:, 0], wide[:, -1] = half[:, 0], half[:, -1]
        np.add(near[:, 1:], far[:, :-1], out=wide[:, 2::2])
        np.add(near[:, :-1], far[:, 1:], out=wide[:, 1:-1:2])
        near, far = np.float32(0.75) * wide, np.float32(0.25) * wide
        full = np.empty((2 * h, 2 * w), dtype=np.float32)
        full[0], full[-1] = wide[0], wide[-1]
        np.add(near[1:], far[:-1], out=full[2::2])
        np.add(near[:-1], far[1:], out=full[1:-1:2])
        return full

    def clouds(self, offset: tuple[int, int], cell: float) -> Floats:
        """Cut (h, w) smooth noise of zero mean and unit variance from the shared tile.

        Args:
            offset: Position in the tile, any two integers.
            cell: Size of the blobs, centimetres.
        """
        step = 5.0 * 2 / (cell * self.scale)
        rows = ((np.arange(self.shape[0]) * step).astype(np.intp) + offset[0]) % TILE
        columns = ((np.arange(self.shape[1]) * step).astype(np.intp) + offset[1]) % TILE
        return cloud_tile().take(rows, axis=0).take(columns, axis=1)

    def glow(self, outlines: Iterable[Points], blur: float) -> Floats:
        """Fill closed outlines and blur them widely, ``blur`` centimetres; returns (h, w) in [0, 1]."""
        image = Image.new("L", (-(-self.size[0] // 4), -(-self.size[1] // 4)))
        draw = ImageDraw.Draw(image)
        for outline in outlines:
            draw.polygon((self.pixels(outline) / 4 - 0.5).ravel().tolist(), fill=255)
        image = image.filter(ImageFilter.GaussianBlur(float(blur * self.scale / 4)))
        box = (0.0, 0.0, self.size[0] / 4, self.size[1] / 4)
        wide = image.resize((self.shape[1], self.shape[0]), Image.Resampling.BILINEAR, box=box)
        return np.asarray(wide, dtype=np.float32) * np.float32(1 / 255)

    @staticmethod
    def _soften(image: Image.Image, sigma: float) -> Floats:
        # A box of the same variance is as good for an edge as a Gaussian, at a third of the time.
        if sigma > 0.3:
            image = image.filter(ImageFilter.BoxBlur(max(0.3, 1.73 * float(sigma) - 0.5)))
        return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)


class Fine:
    """One layer of sharp detail on the full grid: values in [0, 1], the later stroke covers the earlier."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._image = Image.new("L", canvas.size)
        self._draw = ImageDraw.Draw(self._image)
        self._empty = True

    def polygons(self, outlines: Sequence[Points] | Points, fill: float, edge: float | None = None) -> None:
        """Fill closed outlines, (n, K, 2) or a list of (K, 2), and trace their edges where ``edge`` is given."""
        line = None if edge is None else _level(edge)
        for outline in self._pixels(outlines):
            self._draw.polygon(outline, fill=_level(fill), outline=line)

    def lines(self, paths: Sequence[Points] | Points, widths: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Draw strokes, (n, K, 2) or a list of (K, 2), of the given n widths (centimetres) and n values."""
        pens = np.maximum(np.rint(np.asarray(widths) * self._canvas.scale), 1).astype(np.intp).tolist()
        levels = np.rint(255 * np.clip(values, 0, 1)).astype(np.intp).tolist()
        line = self._draw.line
        for points, pen, level in zip(self._pixels(paths), pens, levels, strict=True):
            line(points, level, pen)

    def add_to(self, total: Floats, weight: float, where: Floats | None = None) -> None:
        """Add the layer times ``weight``, and times ``where`` (2h, 2w) if given, to ``total`` (2h, 2w) in place."""
        if self._empty:
            return
        layer = np.asarray(self._image, dtype=np.float32)
        layer *= np.float32(weight / 255)
        if where is not None:
            layer *= where
        total += layer

    def lay_over(self, other: "Fine") -> None:
        """Add another layer of the same canvas to this one; sums above 1 stay at 1."""
        self._image = ImageChops.add(self._image, other._image)
        self._draw = ImageDraw.Draw(self._image)
        self._empty = self._empty and other._empty

    def _pixels(self, paths: Sequence[Points] | Points) -> list[list[float]]:
        self._empty = False
        if isinstance(paths, np.ndarray):
            flat: list[list[float]] = self._canvas.pixels(paths).reshape(len(paths), -1).tolist()
            return flat
        return [self._canvas.pixels(points).ravel().tolist() for points in paths]


def smooth(full: Floats) -> Floats:
    """Blur (H, W) with the 3 x 3 binomial kernel, to hide the staircase of strokes drawn without antialiasing."""
    quarter = np.float32(0.25)
    pairs = full[:-1] + full[1:]
    down = full.copy()
    np.multiply(pairs[:-1] + pairs[1:], quarter, out=down[1:-1])
    pairs = down[:, :-1] + down[:, 1:]
    np.multiply(pairs[:, :-1] + pairs[:, 1:], quarter, out=down[:, 1:-1])
    return down


def _level(value: float) -> int:
    return round(255 * min(max(value, 0.0), 1.0))


@functools.cache
def cloud_tile() -> Floats:
    """(TILE, TILE) periodic smooth noise, blobs of 5 pixels, zero mean, unit variance; the same in every process."""
    return _tile(5.0, seed=1)


@functools.cache
def grain_tile() -> Floats:
    """(TILE, TILE) periodic film grain: white noise, slightly softened, zero mean, unit variance."""
    return _tile(0.45, seed=2)


def _tile(sigma: float, seed: int) -> Floats:
    white = np.random.default_rng(seed).standard_normal((TILE, TILE))
    frequency = np.fft.fftfreq(TILE)
    weight = np.exp(-2 * (np.pi * sigma) ** 2 * (frequency[:, None] ** 2 + frequency**2))
    tile = np.fft.ifft2(np.fft.fft2(white) * weight).real
    return ((tile - tile.mean()) / tile.std()).astype(np.float32)
