"""Networks by name: ours, and any other of timm's, for one grey channel."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

import mxa.models.efficientvit  # noqa: F401  (puts the mxa_* models into timm's registry)
from mxa.errors import ConfigError


def build_model(
    name: str, num_classes: int, size: int, *, pretrained: bool = False, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Make a classifier (B, 1, size, size) -> (B, num_classes) logits.

    Args:
        name: a timm model name, such as ``mxa_efficientvit_m0`` or ``efficientvit_m0``.
        num_classes: number of findings L.
        size: width and height of the input in pixels.
        pretrained: load timm's ImageNet weights; the first convolution's three channels are added up to one.
        options: further arguments of the model.

    Raises:
        ConfigError: timm has no such model, the model refuses an option, or pretrained weights cannot be had.
    """
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.rpartition('_')[2]}*")[:5]
        raise ConfigError(
            f"model.name is {name!r}, which timm does not know; ours are "
            f"{timm.list_models('*efficientvit_m?')}, close: {close}"
        )
    cfg = timm.get_pretrained_cfg(name)
    sized = {"img_size": size} if cfg is not None and cfg.fixed_input_size else {}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, in_chans=1, num_classes=num_classes, **{**sized, **(options or {})}
        )
    except OSError as error:  # the hub's "not in the cache, and no network"; it is a ValueError as well
        raise ConfigError(
            f"model.pretrained: the weights of {name} are neither in the Hugging Face cache nor could they be "
            f"downloaded ({error}); get {cfg.hf_hub_id if cfg is not None else name} on a machine with a network and "
            "copy its cache folder, or train without model.pretrained"
        ) from error
    except RuntimeError as error:
        if not pretrained:
            raise
        raise ConfigError(f"model.pretrained: {name} has no weights to start from ({error}); leave it out") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.options {dict(options or {})} do not fit {name}: {error}") from error
    return model
