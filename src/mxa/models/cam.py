"""Class-activation maps: each finding's logit, taken apart by place.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, section 2: behind average pooling a
linear head may as well be applied at every position of the last map and averaged afterwards. So may the batch norm
that EfficientViT has in its head, which is affine in evaluation. The head is applied here as it stands, at every
position; its constant is then spread evenly over them, and a map's mean is the logit, with nothing left over.

Shapes: B pictures, L findings, S the side of the network's input in pixels, h x w the network's last map.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mxa.errors import ConfigError
from mxa.models.artifact import Classifier
from mxa.models.efficientvit import MxaEfficientVit


@dataclass(frozen=True)
class Maps:
    """What :func:`class_activation_maps` returns.

    Attributes:
        logits: (B, L) float32.
        maps: (B, L, h, w) float32, in logits; the mean of each map is its logit.
        boxes: of each MXA block by name (``stages.0.blocks.0``) the boxes (B, 4): corners x1, y1, x2, y2 in [0, 1] of
            the input. Empty without MXA.
    """

    logits: Tensor
    maps: Tensor
    boxes: dict[str, Tensor]


@torch.inference_mode()
def class_activation_maps(classifier: Classifier, pixels: Tensor) -> Maps:
    """Score pictures, take the logits apart by place, and say where the MXA blocks looked, in one pass.

    Args:
        classifier: a network whose head is average pooling followed by a linear layer.
        pixels: (B, 1, S, S) uint8, as :meth:`mxa.preprocess.Preprocess.resize` makes them.

    Raises:
        ConfigError: the network has another head, so that there is no exact map.
    """
    model, name = classifier.model, classifier.architecture.name
    parameter = next(model.parameters())
    logits, maps, boxes = activation_maps(
        model, name, classifier.preprocess.scale(pixels.to(parameter.device, parameter.dtype))
    )
    _check_sum(name, maps, logits)
    return Maps(logits.float(), maps.float(), boxes)


def activation_maps(model: nn.Module, name: str, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits (B, L), maps (B, L, h, w) and boxes of scaled pictures (B, 1, S, S).

    Whether the maps' means are the logits is not compared here: that waits for the device
    (:func:`class_activation_maps` does).

    Args:
        model: as for :func:`class_activation_maps`, in evaluation mode.
        name: its name, for messages.
        x: the pictures.

    Raises:
        ConfigError: its head does not start from one map.
    """
    network: Any = model
    features, boxes = _last_map(model, name, x)
    logits = network.forward_head(features)
    batch, channels, height, width = features.shape
    positions = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    maps = network.forward_head(positions).reshape(batch, height, width, -1).permute(0, 3, 1, 2)
    return logits, maps, boxes


def _last_map(model: nn.Module, name: str, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What the head pools, (B, C, h, w), and the boxes."""
    if isinstance(model, MxaEfficientVit):
        # The same network, its weights shared, without its head. A hook would also see what other threads put through.
        body = copy.copy(model)
        body.forward_head = lambda features: features
        return body.forward_with_regions(x)
    timms: Any = model
    if not all(hasattr(timms, part) for part in ("forward_features", "forward_head", "num_features")):
        raise _refusal(name, "it does not say where its head begins, as timm's networks do")
    features: Any = timms.forward_features(x)
    if not isinstance(features, Tensor) or features.ndim != 4 or features.shape[1] != timms.num_features:
        raise _refusal(name, "its head does not start from one map (channels, height, width)")
    return features, {}


def _check_sum(name: str, maps: Tensor, logits: Tensor) -> None:
    """Refuse a head for which the map's mean is not the logit, rounding aside."""
    difference = float((maps.mean((2, 3)) - logits).abs().max())
    rounding = math.sqrt(torch.finfo(maps.dtype).eps) * (1 + float(maps.abs().max()))
    if not difference <= rounding:
        raise _refusal(name, f"its head is not linear: the mean of a map is off its logit by {difference:.3g}")


def _refusal(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"there is no exact class-activation map of {name}: {reason}. Average pooling followed by a linear layer is "
        "needed, as in EfficientViT (with and without MXA), DenseNet or ResNet"
    )
