"""The network's layers rewritten for inference: the same functions with fewer and larger steps.

Each class is made from the trained layer, takes over its weights, and equals it to rounding. What is saved:

* Batch norm becomes part of the convolution or linear layer beside it.
* x + conv(x) of one depth-wise convolution becomes a convolution whose middle weight is larger by one.
* Windows are cut out and put back by one transposition each, and padded only where they do not fit.
* The attention's scale goes into the query's weights; the query is convolved apart from key and value, so that its two
  convolutions follow each other; the bias is a constant.
* ROI pooling is computed for both axes at once, in the channels-first order of the runtimes, as two matrix products.
"""

from dataclasses import asdict

import torch
import torch.nn.functional as nnf
from timm.models.efficientvit_msra import (
    CascadedGroupAttention,
    ConvNorm,
    LocalWindowAttention,
    NormLinear,
    ResidualDrop,
)
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mxa.models.mxa import ChannelAttention, Mxa, MxaOptions, RegionPredictor


def rewrite(module: nn.Module) -> nn.Module:
    """The inference form of a layer and of all below it; the given one is used up.

    Args:
        module: in eval mode. Layers that are none of EfficientViT's or MXA's stay as they are.
    """
    if isinstance(module, Mxa) and not FusedMxa.stands_for(module):
        return module
    for name, child in list(module.named_children()):
        setattr(module, name, rewrite(child))
    if isinstance(module, ConvNorm):
        return fuse_conv_bn_eval(module.conv, module.bn)
    if isinstance(module, NormLinear):
        return _fuse_norm_linear(module.bn, module.linear)
    if type(module) is ResidualDrop and isinstance(module.m, nn.Conv2d):
        return _with_identity(module.m)
    for trained, rewritten in _REWRITTEN.items():
        if isinstance(module, trained):
            return rewritten(module)
    return module


@torch.no_grad()
def _fuse_norm_linear(norm: nn.BatchNorm1d, linear: nn.Linear) -> nn.Linear:
    """linear(norm(x)) as one linear layer."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    linear.bias.add_(linear.weight @ (norm.bias - scale * mean))
    linear.weight *= scale
    return linear


@torch.no_grad()
def _with_identity(conv: nn.Conv2d) -> nn.Conv2d:
    """x + conv(x) as one convolution, for a depth-wise one that keeps the size."""
    height, width = conv.weight.shape[2:]
    conv.weight[:, 0, height // 2, width // 2] += 1
    return conv


class FusedAttention(nn.Module):
    """timm's cascaded group attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        trained: its convolutions already have their batch norm inside.
    """

    @torch.no_grad()
    def __init__(self, trained: CascadedGroupAttention) -> None:
        super().__init__()
        self.key_dim, self.value_dim = trained.key_dim, trained.val_dim
        self.queries = nn.ModuleList(_slice_outputs(conv, 0, self.key_dim) for conv in trained.qkvs)
        self.values = nn.ModuleList(_slice_outputs(conv, self.key_dim, conv.out_channels) for conv in trained.qkvs)
        self.spread = trained.dws
        for conv in self.spread:
            conv.weight *= trained.scale
            conv.bias *= trained.scale
        biases = trained.attention_biases[:, trained.attention_bias_idxs]
        self.biases = nn.ParameterList(nn.Parameter(bias.clone(), requires_grad=False) for bias in biases)
        self.proj = trained.proj

    def forward(self, x: Tensor) -> Tensor:
        """Attend, head after head: each head's output is added to the next one's input."""
        _, _, H, W = x.shape
        parts = x.chunk(len(self.queries), dim=1)
        heads: list[Tensor] = []
        for part, query, value, spread, bias in zip(
            parts, self.queries, self.values, self.spread, self.biases, strict=True
        ):
            feature = heads[-1] + part if heads else part
            q = spread(query(feature)).flatten(2)
            k, v = value(feature).flatten(2).split([self.key_dim, self.value_dim], dim=1)
            weights = (q.transpose(1, 2) @ k + bias).softmax(dim=-1)
            heads.append((v @ weights.transpose(1, 2)).reshape(-1, self.value_dim, H, W))
        attended: Tensor = self.proj(torch.cat(heads, dim=1))
        return attended


def _slice_outputs(conv: nn.Conv2d, start: int, stop: int) -> nn.Conv2d:
    """The 1 x 1 convolution that gives channels start to stop of another's output."""
    part = nn.Conv2d(conv.in_channels, stop - start, 1, dtype=conv.weight.dtype)
    part.weight.copy_(conv.weight[start:stop])
    part.bias.copy_(conv.bias[start:stop])  # type: ignore[union-attr,index]
    return part


class FusedWindows(nn.Module):
    """timm's local window attention, (B, C, H, W) -> (B, C, H, W).

    Args:
        trained: its attention is a :class:`FusedAttention` already.
    """

    def __init__(self, trained: LocalWindowAttention) -> None:
        super().__init__()
        self.attention = trained.attn
        # As timm: the window shrinks with a small map.
        self.window = min(trained.window_resolution, trained.resolution)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each window; windows lie side by side from the upper left corner on."""
        _, C, H, W = x.shape
        side = self.window
        if H == W == side:
            whole: Tensor = self.attention(x)
            return whole
        below, right = -H % side, -W % side
        if below or right:
            x = nnf.pad(x, (0, right, 0, below))
        rows, columns = (H + below) // side, (W + right) // side
        x = x.reshape(-1, C, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5).reshape(-1, C, side, side)
        x = self.attention(x)
        x = x.reshape(-1, rows, columns, C, side, side).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(-1, C, H + below, W + right)
        return x[:, :, :H, :W] if below or right else x


class FusedRegionPredictor(nn.Module):
    """:class:`mxa.models.mxa.RegionPredictor`, giving a box's lower edges and sizes instead of its corners."""

    @torch.no_grad()
    def __init__(self, trained: RegionPredictor) -> None:
        super().__init__()
        self.pool, self.min_size = trained.pool, trained.min_size
        self.conv = fuse_conv_bn_eval(trained.conv, trained.norm)
        self.head = trained.head
        # 1 - sigmoid(a) is sigmoid(-a): the room that the size leaves comes out directly.
        self.head.weight[:2] *= -1
        self.head.bias[:2] *= -1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, C, H, W) to lower edges and sizes, each (B, 2), width first, in [0, 1]."""
        if self.pool > 1:
            x = nnf.avg_pool2d(x, self.pool, ceil_mode=True, count_include_pad=False)
        pooled = nnf.relu(self.conv(x)).mean((2, 3))
        free, place = self.head(pooled).sigmoid().split(2, dim=1)
        room = (1 - self.min_size) * free
        return room * place, 1 - room


class FusedMxa(nn.Module):
    """:class:`mxa.models.mxa.Mxa`: a square map (B, C, S, S) to the refined map and its boxes (B, 4)."""

    FOLLOWED = ("reduction", "spatial_kernel", "spatial_bias", "gates", "region_reduction", "region_pool", "min_size")
    """Options that the weights and the rewritten parts themselves carry along."""
    TRAINING = ("jitter",)
    """Options without a meaning in inference."""

    def __init__(self, trained: Mxa) -> None:
        super().__init__()
        assert trained.region is not None
        self.region, self.channel, self.spatial = trained.region, trained.channel, trained.spatial

    @classmethod
    def stands_for(cls, trained: Mxa) -> bool:
        """Whether a block is the paper's in all other options; if not it is left as it was trained."""
        free = dict.fromkeys((*cls.FOLLOWED, *cls.TRAINING))
        return asdict(trained.options) | free == asdict(MxaOptions()) | free

    def forward(self, x: Tensor, finer: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`mxa.models.mxa.Mxa.forward`."""
        low, size = self.region(x)
        columns, rows = crop_weights(low, size, x.shape[-1]).split(1, dim=1)
        refined = self.spatial(self.channel(crop(x, columns.squeeze(1), rows.squeeze(1))))
        return refined, torch.cat([low, low + size], dim=1)


def crop_weights(low: Tensor, size: Tensor, pixels: int) -> Tensor:
    """What each pixel of an axis contributes to each pixel of the crop.

    :func:`mxa.models.mxa.bilinear_weights` of :func:`mxa.models.mxa.sampling_positions`, of several axes at once: with
    the crop's extent e = size x pixels - 1 between the centres of its first and last pixel, output j reads the position
    low x pixels + clip((j + 0.5) (e + 1) / pixels - 0.5, 0, e), or + e / 2 where e < 0.

    Args:
        low: (B, A) lower edges, in [0, 1].
        size: (B, A) sizes, low + size at most 1.
        pixels: n of each of the A axes, in and out.

    Returns:
        (B, A, n, n); rows are the crop's pixels, and each sums to 1.
    """
    inside = torch.arange(pixels, dtype=low.dtype, device=low.device)
    extent = (size * pixels - 1).unsqueeze(-1)
    middle = extent * 0.5
    offset = (inside + 0.5) / pixels * (extent + 1) - 0.5
    offset = torch.minimum(torch.maximum(offset, middle.clamp(max=0)), torch.maximum(extent, middle))
    position = ((low * pixels).unsqueeze(-1) + offset).clamp(0, pixels - 1)
    return nnf.relu(1 - (position.unsqueeze(-1) - inside).abs())


def crop(x: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Resample a map (B, C, H, W) by weights (B, W, W) of its columns and (B, H, H) of its rows."""
    _, C, H, W = x.shape
    x = x.reshape(-1, C * H, W) @ columns.transpose(1, 2)
    x = x.reshape(-1, C, H, W).transpose(2, 3).reshape(-1, C * W, H) @ rows.transpose(1, 2)
    return x.reshape(-1, C, W, H).transpose(2, 3)


class FusedChannelAttention(nn.Module):
    """:class:`mxa.models.mxa.ChannelAttention`; both poolings are added before the second layer, which is linear."""

    def __init__(self, trained: ChannelAttention) -> None:
        super().__init__()
        self.w1, self.w2 = trained.w1, trained.w2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        pooled = torch.stack([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        gate = self.w2(nnf.relu(self.w1(pooled)).sum(1)).sigmoid()
        return x * gate[:, :, None, None]


_REWRITTEN: dict[type[nn.Module], type[nn.Module]] = {
    CascadedGroupAttention: FusedAttention,
    LocalWindowAttention: FusedWindows,
    RegionPredictor: FusedRegionPredictor,
    ChannelAttention: FusedChannelAttention,
    Mxa: FusedMxa,
}
