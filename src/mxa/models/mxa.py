"""The Medical X-ray Attention (MXA) block of the paper, section 4.

The block looks at its input map F (B, C, H, W), predicts one box per image, crops F to it and resizes the crop back to
(H, W) (dynamic ROI pooling, 4.1), then refines the crop with channel and spatial attention (CBAM, 4.2). Its output is
added to the attention's (4.3); that sum is made by :class:`mxa.models.efficientvit.MxaMixer`.

Why it starts quietly. A fresh block must not disturb a trained backbone, nor starve itself of gradient:

* The box starts at ``initial_size`` (0.9) of the map's width and height, centred: nearly the identity, but not at the
  flat end of the sigmoid, where neither its size (slope 1 - size) nor its place (free play 1 - size) could be learnt.
* Both gates are sigmoids, so they would start near 0.5 and add 0.25 F. The spatial gate's bias starts at -4 instead:
  F_MXA starts at about 0.5 x 0.018 F, a change of 1%, and the paper's formula stays as it is. The gradients of the
  block are scaled by the same small factor; AdamW divides that factor out.
"""

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

INITIAL_SPATIAL_BIAS = -4.0


class RegionPredictor(nn.Module):
    """One box per image from a feature map: 3 x 3 convolution, batch norm, ReLU, mean over the map, linear layer [4.1].

    The linear layer gives two numbers per axis: the box's size and its place in the room that its size leaves. With
    ``size = min_size + (1 - min_size) sigmoid(a)`` and ``place = sigmoid(b)`` the corners are ``(1 - size) place`` and
    ``1 - (1 - size)(1 - place)``: ordered and inside the map whatever the network says, and smooth in both numbers.

    Args:
        channels: channels C of the map.
        reduction: the convolution has ``max(8, C // reduction)`` output channels.
        min_size: smallest width and height of the box, a fraction of the map's, in (0, 1).
        initial_size: width and height of the box at the start, in (min_size, 1).
        pool: the map is averaged over windows of this side before the convolution, most of the block's time otherwise;
            1 convolves the map itself, the paper's form. It changes what the predictor can see, not only its speed.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        min_size: float = 0.1,
        initial_size: float = 0.9,
        pool: int = 1,
    ) -> None:
        super().__init__()
        if pool < 1:
            raise ValueError(f"pool must be at least 1, got {pool}")
        if not 0 < min_size < initial_size < 1:
            raise ValueError(
                f"need 0 < min_size < initial_size < 1, got min_size={min_size}, initial_size={initial_size}"
            )
        hidden = max(8, channels // reduction)
        self.min_size = min_size
        self.pool = pool
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.act = nn.ReLU()
        self.head = nn.Linear(hidden, 4)
        fraction = (initial_size - min_size) / (1 - min_size)
        logit = math.log(fraction / (1 - fraction))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([logit, logit, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Predict the boxes.

        Args:
            x: map (B, C, H, W).

        Returns:
            (B, 4) corners x1, y1, x2, y2 in [0, 1] of the map's width and height, x1 < x2 and y1 < y2; float32 at
            least, also under autocast, because bfloat16 cannot tell neighbouring positions apart.
        """
        if self.pool > 1:
            x = nnf.avg_pool2d(x, self.pool, ceil_mode=True, count_include_pad=False)
        pooled = self.act(self.norm(self.conv(x))).mean((2, 3))
        raw = self.head(pooled)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        size = self.min_size + (1 - self.min_size) * raw[:, :2].sigmoid()
        place = raw[:, 2:].sigmoid()
        room = 1 - size
        return torch.cat([room * place, 1 - room * (1 - place)], dim=1)


def sampling_positions(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Where a crop reads one axis of the map, in units of its pixels' centres.

    Cutting out the pixels between two edges and resizing them to ``size`` reads position
    ``low + (j + 0.5) (high - low) / size - 0.5`` for output j, kept between the first and the last pixel inside the
    edges, so that nothing outside the crop shows. A crop narrower than one pixel reads its middle.

    Args:
        low: (B,) lower edge, in [0, 1] of the axis.
        high: (B,) upper edge, in (low, 1].
        size: number of pixels of the axis, in and out.

    Returns:
        (B, size) positions in [0, size - 1], differentiable in both edges.
    """
    low, high = (low * size).unsqueeze(1), (high * size).unsqueeze(1)
    step = (torch.arange(size, dtype=low.dtype, device=low.device) + 0.5) / size
    position = low + step * (high - low) - 0.5
    middle = (low + high - 1) / 2
    first, last = torch.minimum(low, middle), torch.maximum(high - 1, middle)
    return torch.minimum(torch.maximum(position, first), last).clamp(0, size - 1)


def bilinear_weights(positions: Tensor, size: int) -> Tensor:
    """What each pixel of an axis contributes to a linear interpolation: ``max(0, 1 - |position - pixel|)``.

    Args:
        positions: (B, n) in [0, size - 1].
        size: number of pixels.

    Returns:
        (B, n, size); each row sums to 1.
    """
    pixels = torch.arange(size, dtype=positions.dtype, device=positions.device)
    return (1 - (positions.unsqueeze(-1) - pixels).abs()).clamp(min=0)


def roi_pool(x: Tensor, boxes: Tensor) -> Tensor:
    """Crop each image's map to its box and resize the crop back to the map's size, bilinear [4.1].

    Equal to slicing and ``interpolate(mode="bilinear", align_corners=False)`` where the box's edges fall on pixel
    edges, continuous in between, and differentiable in the box, so that the classification loss trains the region
    predictor. The whole map gives the map.

    Args:
        x: map (B, C, H, W).
        boxes: (B, 4) corners x1, y1, x2, y2 in [0, 1], x1 < x2 and y1 < y2.

    Returns:
        (B, C, H, W) of x's dtype. Where autocast makes its matrix products in bfloat16, so are these; the positions
        stay in the boxes' own precision.
    """
    B, C, H, W = x.shape
    columns = bilinear_weights(sampling_positions(boxes[:, 0], boxes[:, 2], W), W).to(x.dtype)
    rows = bilinear_weights(sampling_positions(boxes[:, 1], boxes[:, 3], H), H).to(x.dtype)
    # Two matrix products, in the order of channels_last: no layout is changed on the way in or out, and the backward
    # pass is two more products. grid_sample takes twice the time, and its backward pass scatters.
    pixels = x.permute(0, 2, 3, 1).reshape(B, H, W * C)
    pooled = torch.matmul(columns.unsqueeze(1), torch.bmm(rows, pixels).view(B, H, W, C))
    return pooled.permute(0, 3, 1, 2)


class ChannelAttention(nn.Module):
    """M_C = sigmoid(W2 relu(W1 GAP(F)) + W2 relu(W1 GMP(F))), one MLP for both poolings; returns M_C x F [4.2].

    Args:
        channels: channels C of the map.
        reduction: r; the MLP has ``max(1, C // r)`` hidden units.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.w1 = nn.Linear(channels, max(1, channels // reduction), bias=False)
        self.act = nn.ReLU()
        self.w2 = nn.Linear(self.w1.out_features, channels, bias=False)
        nn.init.trunc_normal_(self.w2.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        pooled = torch.stack([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        gate = self.w2(self.act(self.w1(pooled))).sum(1).sigmoid()
        return x * gate[:, :, None, None]


class SpatialAttention(nn.Module):
    """M_S = sigmoid(Conv2D([max_c F, mean_c F])); returns M_S x F [4.2].

    Args:
        kernel: odd kernel size of the convolution.
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the spatial kernel must be odd, got {kernel}")
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.constant_(self.conv.bias, INITIAL_SPATIAL_BIAS)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        described = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * self.conv(described).sigmoid()


class Mxa(nn.Module):
    """The MXA block: region predictor, ROI pooling, channel attention, spatial attention, in this order [4.1, 4.2].

    Args:
        channels: channels C of the map.
        reduction: r of the channel attention.
        spatial_kernel: kernel size of the spatial attention.
        region_reduction: channels of the map over those of the region predictor's convolution.
        region_pool: side of the windows that the region predictor's map is averaged over first; 1 is the paper's form.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        spatial_kernel: int = 7,
        region_reduction: int = 4,
        region_pool: int = 1,
    ) -> None:
        super().__init__()
        self.region = RegionPredictor(channels, region_reduction, pool=region_pool)
        self.channel = ChannelAttention(channels, reduction)
        self.spatial = SpatialAttention(spatial_kernel)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Refine the map.

        Args:
            x: map F (B, C, H, W).

        Returns:
            F_MXA (B, C, H, W) and the boxes (B, 4), corners x1, y1, x2, y2 in [0, 1].
        """
        boxes = self.region(x)
        return self.spatial(self.channel(roi_pool(x, boxes))), boxes
