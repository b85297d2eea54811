"""The block's two gates, channel attention and spatial attention [4.2] (CBAM: Woo et al., ECCV 2018)."""

import torch
from torch import Tensor, nn

INITIAL_SPATIAL_BIAS = -4.0
"""Lets a fresh block add 1% of its input, see :mod:`mxa.models.mxa.block`."""


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
        bias: where its bias starts.
    """

    def __init__(self, kernel: int = 7, bias: float = INITIAL_SPATIAL_BIAS) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the spatial kernel must be odd, got {kernel}")
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.constant_(self.conv.bias, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        described = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * self.conv(described).sigmoid()
