"""The network that is exported: 8-bit pixels in, logits and boxes out, with everything between them inside."""

import copy

import torch
from torch import Tensor, nn

from mxa.deploy.layers import rewrite
from mxa.models.artifact import Classifier
from mxa.models.efficientvit import MxaEfficientVit
from mxa.preprocess import Preprocess


class Graph(nn.Module):
    """(B, 1, S, S) uint8 pixels -> logits (B, L), and boxes (B, n, 4) of a network with n MXA blocks.

    Args:
        classifier: its network is copied and rewritten (:mod:`mxa.deploy.layers`); the scaling goes before it.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.preprocess: Preprocess = classifier.preprocess
        self.blocks = block_names(classifier)
        # In double precision, so that the new weights are rounded once.
        self.network = rewrite(copy.deepcopy(classifier.model).cpu().double().eval()).float().requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Score pictures that :meth:`mxa.preprocess.Preprocess.resize` made."""
        x = self.preprocess.scale(pixels.to(torch.float32))
        if not self.blocks:
            return (self.network(x),)
        logits, regions = self.network.forward_with_regions(x)  # type: ignore[operator]
        return logits, torch.stack([regions[block] for block in self.blocks], dim=1)


def block_names(classifier: Classifier) -> tuple[str, ...]:
    """The MXA blocks with a box (``stages.0.blocks.0``) in the network's order; none of a network without MXA."""
    return classifier.model.region_blocks() if isinstance(classifier.model, MxaEfficientVit) else ()
