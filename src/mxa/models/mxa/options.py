"""What an MXA block is made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mxa.models.mxa.gates import INITIAL_SPATIAL_BIAS
from mxa.models.mxa.region import SIDE_BY_SIDE

REGIONS = ("mean", "moments")
SOURCES = ("map", "stem", "image")
OF_THE_GATES = ("reduction", "spatial_kernel", "spatial_bias", "layer_scale")
OF_THE_REGION = (
    *("region_reduction", "region_pool", "region", "regions", "min_size", "log_size"),
    *("smoothing", "jitter", "source", "put_back"),
)


@dataclass(frozen=True)
class MxaOptions:
    """The defaults are the paper's [4]; what has been measured of the others stands in docs/block.md.

    Raises:
        ValueError: a field has an impossible value, or fields contradict each other.
    """

    reduction: int = 16
    """r of the channel attention."""
    spatial_kernel: int = 7
    """Kernel size of the spatial attention, odd."""
    region_reduction: int = 4
    """Channels of the map over those of the region predictor's 3 x 3 convolution."""
    region_pool: int = 1
    """Side of the windows that the region predictor's map is averaged over first; 1 is the paper's."""
    roi: bool = True
    """Crop to the box. Off, the gates see the whole map: CBAM beside the attention."""
    gates: bool = True
    """Refine by channel and spatial attention. Off, the crop is only scaled by a number per channel."""
    region: str = "mean"
    """How the box is predicted: mean (the paper's: a linear layer behind the mean over the map) or moments (centroid
    and spread of a region map)."""
    regions: int = 1
    """Boxes per image, each of a predictor of its own; their crops are refined by the same gates and averaged. Those of
    ``region: mean`` start side by side."""
    min_size: float = 0.1
    """Smallest width and height of the box, a fraction of the map's."""
    log_size: bool = False
    """Predict the box's width and height on a logarithmic scale, for ``region: mean``: a step changes a small box by
    the same factor as a large one."""
    smoothing: float = 1.0
    """How far the crop's interpolation reaches, in pixels of the crop; more gives the box a wider view of what it would
    gain by moving."""
    jitter: float = 0.0
    """In training each box is moved and resized at random by this standard deviation, a fraction of the map's side: the
    loss is then a mean over crops nearby, whose gradient reaches farther (randomised smoothing)."""
    source: str = "map"
    """What is cropped: map (the block's own, the paper's) or, for blocks of the first stage, stem (the stem's map of
    twice the resolution) or image (the picture; its crop, enlarged to the whole, goes through a patch embedding of its
    own)."""
    put_back: bool = False
    """Put the refined crop back to where it was cut out, so that it adds to the attention's output of that place."""
    layer_scale: float | None = None
    """Where a number per channel starts that scales what the block adds (LayerScale; Touvron et al., "Going deeper with
    Image Transformers", ICCV 2021). None has no such numbers, the paper's form."""
    spatial_bias: float = INITIAL_SPATIAL_BIAS
    """Where the spatial gate's bias starts: -4 lets a fresh block add 1% of its input, 0 lets it add 25%."""

    def __post_init__(self) -> None:
        _require(self.region in REGIONS, "mxa_region", self.region, f"one of {', '.join(REGIONS)}")
        _require(self.source in SOURCES, "mxa_source", self.source, f"one of {', '.join(SOURCES)}")
        kernel = self.spatial_kernel
        _require(kernel >= 1 and kernel % 2 == 1, "mxa_spatial_kernel", kernel, "odd and at least 1")
        for name in ("reduction", "region_reduction", "region_pool", "regions", "smoothing"):
            _require(getattr(self, name) >= 1, f"mxa_{name}", getattr(self, name), "at least 1")
        _require(
            0 < self.min_size < (0.9 if self.regions == 1 else SIDE_BY_SIDE),
            "mxa_min_size",
            self.min_size,
            "between 0 and 0.9, or 0.6 with mxa_regions",
        )
        _require(0 <= self.jitter < 1, "mxa_jitter", self.jitter, "from 0 to below 1")
        _require(
            self.layer_scale is None or (math.isfinite(self.layer_scale) and self.layer_scale != 0),
            "mxa_layer_scale",
            self.layer_scale,
            "a number other than 0",
        )
        log_size = self.log_size and self.region != "mean"
        _require(not log_size, "mxa_log_size", self.log_size, f"off with mxa_region: {self.region}")
        _require(self.roi or self.gates, "mxa_roi and mxa_gates", False, "not both off: nothing would be left")
        self._require_default("mxa_gates", self.gates, OF_THE_GATES)
        self._require_default("mxa_roi", self.roi, OF_THE_REGION)

    def _require_default(self, part: str, on: bool, names: Sequence[str]) -> None:
        """An option of a part that is left out would do nothing."""
        given = [f"mxa_{name}" for name in names if getattr(self, name) != getattr(type(self), name)]
        _require(on or not given, part, on, f"on, or leave {', '.join(given)} out")


def _require(ok: bool, name: str, value: object, need: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {value!r}; it must be {need}")
