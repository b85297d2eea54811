"""Where a teacher's class-activation maps lie, as boxes, and how far the MXA blocks' boxes are from them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mxa.models.mxa.region import moment_box
from mxa.training.distributed import processes, total

MIN_SIZE = 0.1
"""Smallest side of a taught box before the border cuts it, as of :class:`mxa.models.mxa.region.MomentRegion`."""


def taught_regions(maps: Tensor, shown: Tensor) -> Tensor:
    """Boxes around where the maps of the shown findings speak for them.

    What is positive of these maps is added up; as a distribution over the map its centroid and spread make the box
    (:func:`mxa.models.mxa.region.moment_box`).

    Args:
        maps: (B, L, h, w) class-activation maps, in logits.
        shown: (B, L) bool, the findings that count.

    Returns:
        (B, 4) corners x1, y1, x2, y2 in [0, 1]; NaN where no finding is shown or no map is positive anywhere.
    """
    evidence = (maps.clamp(min=0) * shown[..., None, None]).sum(1)
    weight = evidence.sum((1, 2), keepdim=True)
    boxes = moment_box(evidence / weight.where(weight > 0, 1), MIN_SIZE)
    return boxes.where(weight[:, :, 0] > 0, torch.nan)


def region_distance(boxes: Mapping[str, Tensor], taught: Tensor) -> Tensor:
    """Mean distance of corners, over blocks and the images whose region is known; 0 where none is.

    Over the images of all processes, as :func:`mxa.training.losses.masked_bce_with_logits`.

    Args:
        boxes: of each MXA block (B, 4).
        taught: (B, 4), NaN where it is not known.
    """
    known = ~taught[:, :1].isnan()
    wanted = taught.nan_to_num()
    off = torch.stack([(own - wanted).abs().where(known, 0).mean(1) for own in boxes.values()])
    return off.mean(0).sum() * processes() / total(known.sum()).clamp(min=1)
