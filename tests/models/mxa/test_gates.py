"""Channel and spatial attention against loops."""

import math

import numpy as np
import pytest
import torch

from models.mxa.random_weights import randomise
from mxa.models.mxa import ChannelAttention, SpatialAttention


def naive_cbam(x: np.ndarray, w1: np.ndarray, w2: np.ndarray, kernel: np.ndarray, bias: float) -> np.ndarray:
    """CBAM of one image (C, H, W) by loops, as the paper's 4.2 writes it."""
    channels, height, width = x.shape
    average = np.array([x[c].sum() / (height * width) for c in range(channels)])
    maximum = np.array([max(x[c, i, j] for i in range(height) for j in range(width)) for c in range(channels)])
    sigmoid = np.vectorize(lambda v: 1 / (1 + math.exp(-v)))
    gate = sigmoid(w2 @ np.maximum(w1 @ average, 0) + w2 @ np.maximum(w1 @ maximum, 0))
    refined = np.stack([gate[c] * x[c] for c in range(channels)])
    described = np.stack([refined.max(axis=0), refined.mean(axis=0)])
    half = kernel.shape[-1] // 2
    out = np.empty_like(refined)
    for i in range(height):
        for j in range(width):
            total = bias
            for d in range(2):
                for di in range(-half, half + 1):
                    for dj in range(-half, half + 1):
                        if 0 <= i + di < height and 0 <= j + dj < width:
                            total += kernel[d, di + half, dj + half] * described[d, i + di, j + dj]
            out[:, i, j] = refined[:, i, j] / (1 + math.exp(-total))
    return out


@pytest.mark.parametrize("kernel", [3, 7])
def test_cbam_against_loops(kernel: int) -> None:
    channel = randomise(ChannelAttention(8, reduction=2).double(), 1)
    spatial = randomise(SpatialAttention(kernel).double(), 2)
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    found = spatial(channel(x)).detach().numpy()
    for b in range(2):
        expected = naive_cbam(
            x[b].numpy(),
            channel.w1.weight.detach().numpy(),
            channel.w2.weight.detach().numpy(),
            spatial.conv.weight[0].detach().numpy(),
            spatial.conv.bias.item(),
        )
        np.testing.assert_allclose(found[b], expected, atol=1e-12)


def test_max_pooling_branch_counts() -> None:
    """Mistake 3 of the authors' code: without it two maps of equal means could not be told apart."""
    attention = randomise(ChannelAttention(4, reduction=1).double())
    flat = torch.ones(1, 4, 2, 2, dtype=torch.float64)
    peaked = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    peaked[..., 0, 0] = 4
    assert torch.equal(flat.mean((2, 3)), peaked.mean((2, 3)))
    gates = [(attention(x) / x.clamp(min=1e-9))[..., 0, 0] for x in (flat, peaked)]
    assert (gates[0] - gates[1]).abs().max() > 1e-3


def test_an_even_spatial_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        SpatialAttention(4)
