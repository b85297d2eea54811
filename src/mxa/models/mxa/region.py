"""Where to look: predictors of one box per image from a feature map [4.1]."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

SIDE_BY_SIDE = 0.6
"""Width and height at the start of boxes that have neighbours."""


class _MapFeatures(nn.Module):
    """What every predictor begins with: pooling, 3 x 3 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, reduction: int, min_size: float, pool: int) -> None:
        super().__init__()
        if pool < 1:
            raise ValueError(f"pool must be at least 1, got {pool}")
        if not 0 < min_size < 1:
            raise ValueError(f"min_size must be between 0 and 1, got {min_size}")
        self.hidden = max(8, channels // reduction)
        self.min_size = min_size
        self.pool = pool
        self.conv = nn.Conv2d(channels, self.hidden, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(self.hidden)
        self.act = nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, hidden, h, w); a window that the border cuts is averaged over what there is."""
        if self.pool > 1:
            x = nnf.avg_pool2d(x, self.pool, ceil_mode=True, count_include_pad=False)
        found: Tensor = self.act(self.norm(self.conv(x)))
        return found


class RegionPredictor(_MapFeatures):
    """One box per image from a feature map: 3 x 3 convolution, batch norm, ReLU, mean over the map, linear layer [4.1].

    The linear layer gives two numbers per axis: the box's size and its place in the room that its size leaves. With
    ``size = min_size + (1 - min_size) sigmoid(a)`` and ``place = sigmoid(b)`` the corners are ``(1 - size) place`` and
    ``1 - (1 - size)(1 - place)``: ordered and inside the map whatever the network says, and smooth in both numbers. On
    a logarithmic scale ``size = min_size^(1 - sigmoid(a))``.

    Args:
        channels: channels C of the map.
        reduction: the convolution has ``max(8, C // reduction)`` output channels.
        min_size: smallest width and height of the box, a fraction of the map's, in (0, 1).
        initial_size: width and height of the box at the start, in (min_size, 1).
        initial_place: where it lies from left to right at the start, in the room that its size leaves, in (0, 1).
        pool: the map is averaged over windows of this side before the convolution, most of the block's time otherwise;
            1 convolves the map itself, the paper's form. It changes what the predictor can see, not only its speed.
        log_size: predict the size on a logarithmic scale.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        min_size: float = 0.1,
        initial_size: float = 0.9,
        pool: int = 1,
        initial_place: float = 0.5,
        log_size: bool = False,
    ) -> None:
        super().__init__(channels, reduction, min_size, pool)
        if not min_size < initial_size < 1:
            raise ValueError(f"need min_size < initial_size < 1, got {min_size} and {initial_size}")
        self.head = nn.Linear(self.hidden, 4)
        self.log_size = log_size
        if log_size:
            size = _logit(1 - math.log(initial_size) / math.log(min_size))
        else:
            size = _logit((initial_size - min_size) / (1 - min_size))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([size, size, _logit(initial_place), 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Predict the boxes.

        Args:
            x: map (B, C, H, W).

        Returns:
            (B, 4) corners x1, y1, x2, y2 in [0, 1] of the map's width and height, x1 < x2 and y1 < y2; float32 at
            least, also under autocast, because bfloat16 cannot tell neighbouring positions apart.
        """
        pooled = self.features(x).mean((2, 3))
        raw = self.head(pooled)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        share = raw[:, :2].sigmoid()
        size = self.min_size ** (1 - share) if self.log_size else self.min_size + (1 - self.min_size) * share
        place = raw[:, 2:].sigmoid()
        room = 1 - size
        return torch.cat([room * place, 1 - room * (1 - place)], dim=1)


class MomentRegion(_MapFeatures):
    """One box per image from where a region map has its weight: the map's softmax, its centroid and its spread.

    A 3 x 3 convolution, batch norm, ReLU and a 1 x 1 convolution give one number per position; their softmax p is a
    distribution over the map. The box's centre is p's mean; its width is that of a uniform distribution of p's standard
    deviation, ``sqrt(12) sigma``, at least ``min_size``; what leaves the map is cut off. The mean over the map of
    :class:`RegionPredictor` is nearly the same for every image, a centroid is not: the box follows the map's weight.

    It starts as the whole map: p is uniform.

    Args:
        channels: channels C of the map.
        reduction: the convolution has ``max(8, C // reduction)`` output channels.
        min_size: smallest width and height of the box before the cut, a fraction of the map's, in (0, 1).
        pool: as in :class:`RegionPredictor`.
    """

    def __init__(self, channels: int, reduction: int = 4, min_size: float = 0.1, pool: int = 1) -> None:
        super().__init__(channels, reduction, min_size, pool)
        # No bias: a softmax does not see it.
        self.head = nn.Conv2d(self.hidden, 1, 1, bias=False)
        nn.init.trunc_normal_(self.head.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the boxes: (B, C, H, W) -> (B, 4), as :meth:`RegionPredictor.forward`."""
        raw = self.head(self.features(x))
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        return moment_box(raw.flatten(1).softmax(1).view(raw.shape[0], *raw.shape[2:]), self.min_size)


class SeveralRegions(nn.Module):
    """K boxes per image, each predicted by a module of its own.

    Args:
        predictors: K predictors of one box.
    """

    def __init__(self, predictors: Sequence[nn.Module]) -> None:
        super().__init__()
        self.predictors = nn.ModuleList(predictors)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the boxes: (B, C, H, W) -> (B, K, 4)."""
        return torch.stack([predictor(x) for predictor in self.predictors], dim=1)


def moment_box(weight: Tensor, min_size: float) -> Tensor:
    """(B, 4) boxes of distributions (B, h, w) over a map: of their centroid and spread, see :class:`MomentRegion`."""
    centre_x, size_x = _moments(weight.sum(1), min_size)
    centre_y, size_y = _moments(weight.sum(2), min_size)
    low = torch.stack([centre_x - size_x / 2, centre_y - size_y / 2], dim=1).clamp(min=0)
    high = torch.stack([centre_x + size_x / 2, centre_y + size_y / 2], dim=1).clamp(max=1)
    return torch.cat([low, high], dim=1)


def _moments(weight: Tensor, min_size: float) -> tuple[Tensor, Tensor]:
    """Centre and size (B,) of the distribution (B, n) over one axis's pixels, in [0, 1] of the axis."""
    n = weight.shape[1]
    pixels = (torch.arange(n, dtype=weight.dtype, device=weight.device) + 0.5) / n
    centre = (weight * pixels).sum(1)  # autocast would round a matrix product
    variance = (weight * (pixels - centre.unsqueeze(1)).square()).sum(1)
    return centre, (12 * variance + min_size**2).sqrt()


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
