"""Cutting a map to a box and putting the piece back, differentiable in the box.

Both resample rows, then columns, by a matrix each: no layout is changed on the way in or out, and the backward pass is
two more matrix products. grid_sample takes twice the time, and its backward pass scatters.
"""

import torch
from torch import Tensor


def sampling_positions(low: Tensor, high: Tensor, size: int, out: int | None = None) -> Tensor:
    """Where a crop reads one axis of the map, in units of its pixels' centres.

    Cutting out the pixels between two edges and resizing them to ``out`` reads position
    ``low + (j + 0.5) (high - low) / out - 0.5`` for output j, kept between the first and the last pixel inside the
    edges, so that nothing outside the crop shows. A crop narrower than one pixel reads its middle.

    Args:
        low: (B,) lower edge, in [0, 1] of the axis.
        high: (B,) upper edge, in (low, 1].
        size: number of pixels of the axis.
        out: number of positions; as many as pixels if None.

    Returns:
        (B, out) positions in [0, size - 1], differentiable in both edges.
    """
    out = size if out is None else out
    low, high = (low * size).unsqueeze(1), (high * size).unsqueeze(1)
    step = (torch.arange(out, dtype=low.dtype, device=low.device) + 0.5) / out
    position = low + step * (high - low) - 0.5
    middle = (low + high - 1) / 2
    first, last = torch.minimum(low, middle), torch.maximum(high - 1, middle)
    return torch.minimum(torch.maximum(position, first), last).clamp(0, size - 1)


def bilinear_weights(positions: Tensor, size: int, reach: Tensor | float = 1.0) -> Tensor:
    """What each pixel of an axis contributes to an interpolation: ``max(0, reach - |position - pixel|)``, normalised.

    Args:
        positions: (B, n) in [0, size - 1].
        size: number of pixels.
        reach: 1 interpolates linearly between two neighbours. More, a number or (B, 1, 1), averages over as many
            pixels to both sides: for smaller outputs than the crop, or so that the box feels what lies farther away.

    Returns:
        (B, n, size); each row sums to 1.
    """
    pixels = torch.arange(size, dtype=positions.dtype, device=positions.device)
    weights = (reach - (positions.unsqueeze(-1) - pixels).abs()).clamp(min=0)
    # With a reach of 1 the rows sum to 1 already.
    return weights if isinstance(reach, float) and reach == 1 else weights / weights.sum(-1, keepdim=True)


def roi_pool(x: Tensor, boxes: Tensor, out: tuple[int, int] | None = None, smoothing: float = 1.0) -> Tensor:
    """Crop each image's map to its box and resize the crop, bilinear [4.1].

    Equal to slicing and ``interpolate(mode="bilinear", align_corners=False)`` where the box's edges fall on pixel
    edges, continuous in between, and differentiable in the box, so that the classification loss trains the region
    predictor. The whole map gives the map. A crop that has more pixels than ``out`` is averaged (antialiased).

    Args:
        x: map (B, C, H, W).
        boxes: (B, 4) corners x1, y1, x2, y2 in [0, 1], x1 < x2 and y1 < y2.
        out: height and width of the result; None is the map's own, the paper's form.
        smoothing: how many times the usual reach the interpolation has, at least 1.

    Returns:
        (B, C, *out) of x's dtype. Where autocast makes its matrix products in bfloat16, so are these; the positions
        stay in the boxes' own precision.
    """
    _, _, H, W = x.shape
    rows, columns = (H, W) if out is None else out
    return _resample(
        x,
        _crop_weights(boxes[:, 1], boxes[:, 3], H, rows, smoothing),
        _crop_weights(boxes[:, 0], boxes[:, 2], W, columns, smoothing),
    )


def put_back(crop: Tensor, boxes: Tensor) -> Tensor:
    """Put each image's crop back to the place that :func:`roi_pool` took it from; outside of the box is 0.

    A pixel that the box covers in part gets that part. The whole map gives the crop itself.

    Args:
        crop: (B, C, H, W).
        boxes: (B, 4) as they were cut.

    Returns:
        (B, C, H, W), differentiable in crop and boxes.
    """
    _, _, H, W = crop.shape
    return _resample(crop, _return_weights(boxes[:, 1], boxes[:, 3], H), _return_weights(boxes[:, 0], boxes[:, 2], W))


def jittered(boxes: Tensor, deviation: float) -> Tensor:
    """Boxes moved and resized at random, inside the map; differentiable in the boxes.

    Args:
        boxes: (B, 4) corners in [0, 1].
        deviation: standard deviation of the change of each centre and size; sizes stay at least a tenth of what they
            were.

    Returns:
        (B, 4); the draws are torch's of the boxes' device.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2 + deviation * torch.randn_like(size)
    size = torch.minimum(torch.maximum(size + deviation * torch.randn_like(size), size / 10), torch.ones_like(size))
    centre = torch.minimum(torch.maximum(centre, size / 2), 1 - size / 2)
    return torch.cat([centre - size / 2, centre + size / 2], dim=1)


def _crop_weights(low: Tensor, high: Tensor, size: int, out: int, smoothing: float) -> Tensor:
    positions = sampling_positions(low, high, size, out)
    if out >= size and smoothing == 1:  # a crop has no more pixels than the map
        return bilinear_weights(positions, size)
    step = ((high - low) * (size / out)).clamp(min=1).view(-1, 1, 1)
    return bilinear_weights(positions, size, smoothing * step)


def _return_weights(low: Tensor, high: Tensor, size: int) -> Tensor:
    """(B, size, size): rows are the map's pixels, columns the crop's."""
    edges = torch.arange(size + 1, dtype=low.dtype, device=low.device) / size
    low, high = low.unsqueeze(1), high.unsqueeze(1)
    inside = (torch.minimum(edges[1:], high) - torch.maximum(edges[:-1], low)).clamp(min=0) * size
    centres = (edges[:-1] + edges[1:]) / 2
    positions = ((centres - low) / (high - low) * size - 0.5).clamp(0, size - 1)
    return bilinear_weights(positions, size) * inside.unsqueeze(-1)


def _resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) by weights (B, h, H) of its rows and (B, w, W) of its columns -> (B, C, h, w)."""
    B, C, H, W = x.shape
    if C == 1:  # a picture; below, its columns would be multiplied one by one, by a copy of the weights for each row
        by_rows = torch.bmm(rows.to(x.dtype), x.reshape(B, H, W))
        return torch.bmm(by_rows, columns.to(x.dtype).transpose(1, 2)).unsqueeze(1)
    pixels = x.permute(0, 2, 3, 1).reshape(B, H, W * C)
    by_rows = torch.bmm(rows.to(x.dtype), pixels).view(B, rows.shape[1], W, C)
    return torch.matmul(columns.to(x.dtype).unsqueeze(1), by_rows).permute(0, 3, 1, 2)
