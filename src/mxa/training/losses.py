"""The training loss [3.1]."""

import torch.nn.functional as nnf
from torch import Tensor


def masked_bce_with_logits(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Binary cross entropy with logits over the unmasked entries, averaged over them.

    The paper's formula sums over the findings; like its code (and PyTorch's ``BCEWithLogitsLoss``) this takes the mean,
    which only rescales the gradient, by a factor that AdamW divides out. A masked entry has exactly no influence. With
    nothing unmasked the loss is 0, with zero gradient.

    Args:
        logits: (B, L).
        target: (B, L) in [0, 1].
        mask: (B, L) bool, True where the target counts.

    Returns:
        Scalar, float32 at least.
    """
    losses = nnf.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return losses.where(mask, 0).sum() / mask.sum().clamp(min=1)
