"""The Medical X-ray Attention block of the paper, section 4, and what can be changed of it."""

from mxa.models.mxa.block import Mxa
from mxa.models.mxa.gates import ChannelAttention, SpatialAttention
from mxa.models.mxa.options import MxaOptions
from mxa.models.mxa.region import MomentRegion, RegionPredictor
from mxa.models.mxa.sampling import bilinear_weights, put_back, roi_pool, sampling_positions

__all__ = [
    "ChannelAttention",
    "MomentRegion",
    "Mxa",
    "MxaOptions",
    "RegionPredictor",
    "SpatialAttention",
    "bilinear_weights",
    "put_back",
    "roi_pool",
    "sampling_positions",
]
