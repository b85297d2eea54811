"""EfficientViT (MSRA) with the MXA block beside the attention, as timm models ``mxa_efficientvit_m0`` to ``m5``.

The backbone is timm's, which equals the original weights bit for bit (Liu et al., "EfficientViT: Memory Efficient
Vision Transformer with Cascaded Group Attention", CVPR 2023; the paper's Table 2). Inside each block the token mixer x
+ MHSA(x) becomes x + MHSA(x) + MXA(x) [4.3]: one module beside the attention, the names of the backbone's weights
unchanged, so that timm's ImageNet weights load as they are.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.efficientvit_msra import EfficientVitMsra, ResidualDrop, checkpoint_filter_fn
from torch import Tensor, nn

from mxa.errors import ArtifactError
from mxa.models.mxa import Mxa, MxaOptions

__all__ = ["MxaEfficientVit", "MxaMixer"]

# The paper's Table 2, with the depth-wise kernels of the original code.
FAMILY: dict[str, dict[str, Any]] = {
    "m0": {"embed_dim": (64, 128, 192), "depth": (1, 2, 3), "num_heads": (4, 4, 4), "kernels": (5, 5, 5, 5)},
    "m1": {"embed_dim": (128, 144, 192), "depth": (1, 2, 3), "num_heads": (2, 3, 3), "kernels": (7, 5, 3, 3)},
    "m2": {"embed_dim": (128, 192, 224), "depth": (1, 2, 3), "num_heads": (4, 3, 2), "kernels": (7, 5, 3, 3)},
    "m3": {"embed_dim": (128, 240, 320), "depth": (1, 2, 3), "num_heads": (4, 3, 4), "kernels": (5, 5, 5, 5)},
    "m4": {"embed_dim": (128, 256, 384), "depth": (1, 2, 3), "num_heads": (4, 4, 4), "kernels": (7, 5, 3, 3)},
    "m5": {"embed_dim": (192, 288, 384), "depth": (1, 3, 4), "num_heads": (3, 3, 4), "kernels": (7, 5, 3, 3)},
}


class MxaMixer(ResidualDrop):
    """F_output = F_MHSA + F_MXA on the block's residual branch: x -> x + MHSA(x) + MXA(x) [4.3].

    ``m`` is timm's own attention module, under timm's own name.
    """

    def __init__(self, attention: nn.Module, mxa: Mxa) -> None:
        super().__init__(attention)
        self.mxa = mxa

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.forward_with_regions(x)[0]

    def forward_with_regions(self, x: Tensor, finer: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The output (B, C, H, W) and the block's boxes, as :meth:`mxa.models.mxa.Mxa.forward` gives them."""
        refined, boxes = self.mxa(x, finer)
        return x + self.m(x) + refined, boxes


class MxaEfficientVit(EfficientVitMsra):
    """timm's EfficientViT with an MXA block in every block of the chosen stages.

    Args:
        mxa_stages: stages that get MXA blocks, of 0, 1, 2; the paper's is all of them. Empty gives timm's model
            exactly.
        **kwargs: :class:`mxa.models.mxa.MxaOptions`' fields, each with ``mxa_`` before its name (``mxa_reduction``,
            ``mxa_region_pool``, ...), and timm's own arguments (``img_size``, ``in_chans``, ``num_classes``, ...).

    Raises:
        ValueError: an option has an impossible value.
    """

    def __init__(self, mxa_stages: Sequence[int] = (0, 1, 2), **kwargs: Any) -> None:
        own = {one.name: kwargs.pop(key) for one in fields(MxaOptions) if (key := f"mxa_{one.name}") in kwargs}
        super().__init__(**kwargs)
        if not set(mxa_stages) <= set(range(len(self.stages))):
            raise ValueError(f"mxa_stages must be among {list(range(len(self.stages)))}, got {list(mxa_stages)}")
        if own and not mxa_stages:
            raise ValueError(f"mxa_stages is empty, so {', '.join(f'mxa_{name}' for name in own)} would do nothing")
        options = MxaOptions(**own)
        self.mxa_source = options.source
        finer = {
            "map": 0,
            "stem": self.patch_embed.conv3.conv.out_channels,
            "image": self.patch_embed.conv1.conv.in_channels,
        }[options.source]
        for index in sorted(set(mxa_stages)):
            for block in self.stages[index].blocks:
                block.mixer = MxaMixer(block.mixer.m, Mxa(block.mixer.m.dim, options, finer if index == 0 else 0))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images to the last map (B, C, h, w)."""
        if self.mxa_source != "map":
            return self._features_with_regions(x)[0]
        features: Tensor = super().forward_features(x)
        return features

    def forward_with_regions(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Classify, and say where each MXA block looked, in one pass.

        Args:
            x: images (B, in_chans, H, W), scaled as the model's preprocessing contract says.

        Returns:
            logits (B, num_classes), and for each MXA block by name (``stages.0.blocks.0``) the boxes (B, 4): corners
            x1, y1, x2, y2 in [0, 1] of the image's width and height (a block's map covers the whole image). A block
            with several regions has an entry for each (``stages.0.blocks.0.regions.1``). Empty where no block has a
            ROI.
        """
        features, regions = self._features_with_regions(x)
        return self.forward_head(features), regions

    def region_blocks(self) -> tuple[str, ...]:
        """The names of the boxes, those of their blocks, in the network's order."""
        return tuple(
            one
            for name, module in self.named_modules()
            if isinstance(module, Mxa) and module.region is not None
            for one in box_names(name.removesuffix(".mixer.mxa"), module.options.regions)
        )

    def regions(self, x: Tensor) -> dict[str, Tensor]:
        """The boxes of :meth:`forward_with_regions`."""
        return self.forward_with_regions(x)[1]

    def _features_with_regions(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        regions: dict[str, Tensor] = {}
        x, finer = self._embedded(x)
        for i, stage in enumerate(self.stages):
            x = stage.downsample(x)
            for j, block in enumerate(stage.blocks):
                x = block.ffn0(block.dw0(x))
                if isinstance(block.mixer, MxaMixer):
                    x, boxes = block.mixer.forward_with_regions(x, finer)
                    if boxes is not None:
                        each = (boxes,) if boxes.ndim == 2 else boxes.unbind(1)
                        regions |= zip(box_names(f"stages.{i}.blocks.{j}", len(each)), each, strict=True)
                else:
                    x = block.mixer(x)
                x = block.ffn1(block.dw1(x))
        return x, regions

    def _embedded(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The patch embedding's output, and what ``mxa_source`` crops: the picture, or what the last layer sees."""
        if self.mxa_source != "stem":
            return self.patch_embed(x), x if self.mxa_source == "image" else None
        *most, last = self.patch_embed
        for layer in most:
            x = layer(x)
        return last(x), x


def box_names(block: str, regions: int) -> list[str]:
    """Of one block's boxes."""
    return [block] if regions == 1 else [f"{block}.regions.{number}" for number in range(regions)]


def _load_backbone_weights(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """timm's ImageNet weights, plus the fresh MXA blocks' own, so that loading stays strict."""
    state = {key: value for key, value in state.items() if not key.endswith("attention_bias_idxs")}
    own = model.state_dict()
    fresh = {key: value for key, value in own.items() if ".mixer.mxa." in key}
    # Widths alone: the first convolution's channels, the head's classes and the windows' sizes are adapted by timm.
    differing = [
        key for key in own if key.startswith("stages.") and key in state and own[key].shape[:1] != state[key].shape[:1]
    ]
    wrong = sorted((set(own) - set(fresh)) ^ set(state)) + differing
    if wrong:
        raise ArtifactError(
            f"the pretrained weights are not of this EfficientViT size: {len(wrong)} entries are missing, "
            "unknown or of another width, "
            f"such as {', '.join(wrong[:3])}"
        )
    return {**fresh, **checkpoint_filter_fn(state, model)}


def _create(size: str, pretrained: bool, **kwargs: Any) -> MxaEfficientVit:
    model: MxaEfficientVit = build_model_with_cfg(
        MxaEfficientVit,
        f"mxa_efficientvit_{size}",
        pretrained,
        pretrained_filter_fn=_load_backbone_weights,
        feature_cfg={"flatten_sequential": True, "out_indices": kwargs.pop("out_indices", (0, 1, 2))},
        **{**FAMILY[size], **kwargs},
    )
    return model


default_cfgs = generate_default_cfgs(
    {
        f"mxa_efficientvit_{size}.r224_in1k": {
            "hf_hub_id": f"timm/efficientvit_{size}.r224_in1k",
            "num_classes": 1000,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "patch_embed.conv1.conv",
            "classifier": "head.linear",
            "fixed_input_size": True,
            "pool_size": (4, 4),
            "license": "mit",
        }
        for size in FAMILY
    }
)


@register_model
def mxa_efficientvit_m0(pretrained: bool = False, **kwargs: Any) -> MxaEfficientVit:
    """EfficientViT-M0 with MXA blocks."""
    return _create("m0", pretrained, **kwargs)


@register_model
def mxa_efficientvit_m1(pretrained: bool = False, **kwargs: Any) -> MxaEfficientVit:
    """EfficientViT-M1 with MXA blocks."""
    return _create("m1", pretrained, **kwargs)


@register_model
def mxa_efficientvit_m2(pretrained: bool = False, **kwargs: Any) -> MxaEfficientVit:
    """EfficientViT-M2 with MXA blocks."""
    return _create("m2", pretrained, **kwargs)


@register_model
def mxa_efficientvit_m3(pretrained: bool = False, **kwargs: Any) -> MxaEfficientVit:
    """EfficientViT-M3 with MXA blocks."""
    return _create("m3", pretrained, **kwargs)


@register_model
def mxa_efficientvit_m4(pretrained: bool = False, **kwargs: Any) -> MxaEfficientVit:
    """EfficientViT-M4 with MXA blocks."""
    return _create("m4", pretrained, **kwargs)


@register_model
def mxa_efficientvit_m5(pretrained: bool = False, **kwargs: Any) -> MxaEfficientVit:
    """EfficientViT-M5 with MXA blocks."""
    return _create("m5", pretrained, **kwargs)
