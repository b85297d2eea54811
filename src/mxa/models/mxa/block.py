"""The Medical X-ray Attention (MXA) block of the paper, section 4.

The block looks at its input map F (B, C, H, W), predicts one box per image, crops F to it and resizes the crop back to
(H, W) (dynamic ROI pooling, 4.1), then refines the crop with channel and spatial attention (CBAM, 4.2). Its output is
added to the attention's (4.3); that sum is made by :class:`mxa.models.efficientvit.MxaMixer`.

Why it starts quietly. A fresh block must not disturb a trained backbone, nor starve itself of gradient:

* The box starts at ``initial_size`` (0.9) of the map's width and height, centred: nearly the identity, but not at the
  flat end of the sigmoid, where neither its size (slope 1 - size) nor its place (free play 1 - size) could be learnt.
* Both gates are sigmoids, so they would start near 0.5 and add 0.25 F. The spatial gate's bias starts at -4 instead:
  F_MXA starts at about 0.5 x 0.018 F, a change of 1%, and the paper's formula stays as it is. The gradients of the
  block are scaled by the same small factor; AdamW divides that factor out, but it takes many steps to open the gate. A
  network without trained weights has nothing to be disturbed and could start with the gate half open (spatial_bias: 0);
  it came out no better for it (docs/block.md).
"""

import torch
from torch import Tensor, nn

from mxa.models.mxa.gates import ChannelAttention, SpatialAttention
from mxa.models.mxa.options import MxaOptions
from mxa.models.mxa.region import SIDE_BY_SIDE, MomentRegion, RegionPredictor, SeveralRegions
from mxa.models.mxa.sampling import jittered, put_back, roi_pool

INITIAL_SCALE = 0.01
"""Of a crop without gates: it starts as quietly as one with them."""


class Mxa(nn.Module):
    """The MXA block: region predictor, ROI pooling, channel attention, spatial attention, in this order [4.1, 4.2].

    Args:
        channels: channels C of the block's map.
        options: what is changed of the paper's block.
        finer_channels: channels of the stem's map or of the picture, for ``source: stem`` and ``image``.

    Raises:
        ValueError: ``source`` is stem or image, but there is none here.
    """

    def __init__(self, channels: int, options: MxaOptions | None = None, finer_channels: int = 0) -> None:
        super().__init__()
        self.options = options = options or MxaOptions()
        if options.source != "map" and not finer_channels:
            raise ValueError(
                f"mxa_source is {options.source!r}, which is for blocks of the first stage: set mxa_stages to [0]"
            )
        looked_at = finer_channels if options.source == "stem" else channels
        self.region = _make_region(looked_at, options) if options.roi else None
        self.project = _project(options.source, finer_channels, channels)
        self.channel = ChannelAttention(channels, options.reduction) if options.gates else _Scale(channels)
        self.spatial = (
            SpatialAttention(options.spatial_kernel, options.spatial_bias) if options.gates else nn.Identity()
        )
        self.scale = nn.Identity() if options.layer_scale is None else _Scale(channels, options.layer_scale)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Refine the map.

        Args:
            x: map F (B, C, H, W).
            finer: the stem's map (B, C', 2H, 2W) for ``source: stem``, the picture (B, C', 16H, 16W) for ``image``.

        Returns:
            F_MXA (B, C, H, W) and the boxes (B, 4), with several regions (B, K, 4): corners x1, y1, x2, y2 in [0, 1];
            None without ROI.
        """
        if self.region is None:
            return self._gated(x), None
        if self.options.source == "map":
            finer = x
        if finer is None:
            raise ValueError(f"this block crops the {self.options.source}: call the whole model, not its stages")
        # A picture's own greys tell no place apart: there the box is found on the map.
        boxes = self.region(finer if self.options.source == "stem" else x)
        return self._refine(finer, boxes, (x.shape[2], x.shape[3])), boxes

    def _gated(self, x: Tensor) -> Tensor:
        gated: Tensor = self.scale(self.spatial(self.channel(x)))
        return gated

    def _refine(self, source: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """The refined crop (B, C, *size), the mean over several regions."""
        # The patch embedding makes the map's size of the picture's.
        size = (source.shape[2], source.shape[3]) if self.options.source == "image" else size
        several = self.options.regions
        if several > 1:
            source = source.unsqueeze(1).expand(-1, several, -1, -1, -1).flatten(0, 1)
            boxes = boxes.flatten(0, 1)
        if self.training and self.options.jitter:
            boxes = jittered(boxes, self.options.jitter)
        refined = self._gated(self.project(roi_pool(source, boxes, size, self.options.smoothing)))
        if self.options.put_back:
            refined = put_back(refined, boxes)
        return refined if several == 1 else refined.unflatten(0, (-1, several)).mean(1)


class _Scale(nn.Module):
    """A number per channel."""

    def __init__(self, channels: int, start: float = INITIAL_SCALE) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), start))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x * self.weight


def _make_region(channels: int, options: MxaOptions) -> nn.Module:
    if options.regions == 1:
        return _make_predictor(channels, options)
    places = [(number + 0.5) / options.regions for number in range(options.regions)]
    return SeveralRegions(
        [_make_predictor(channels, options, initial_size=SIDE_BY_SIDE, initial_place=place) for place in places]
    )


def _make_predictor(channels: int, options: MxaOptions, **start: float) -> nn.Module:
    reduction, least, pool = options.region_reduction, options.min_size, options.region_pool
    if options.region == "moments":
        return MomentRegion(channels, reduction, least, pool)
    return RegionPredictor(channels, reduction, least, pool=pool, log_size=options.log_size, **start)


def _project(source: str, finer: int, channels: int) -> nn.Module:
    """What makes the block's channels of a crop."""
    if source == "stem":
        return nn.Sequential(nn.Conv2d(finer, channels, 1, bias=False), nn.BatchNorm2d(channels))
    if source == "map":
        return nn.Identity()
    # Not above: timm's first import registers our models, which import this module.
    from timm.models.efficientvit_msra import PatchEmbedding

    return PatchEmbedding(finer, channels)
