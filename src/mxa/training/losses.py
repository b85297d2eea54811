"""The training losses [3.1, 3.4, 5]."""

from typing import NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor

from mxa.training.config import KdConfig
from mxa.training.distributed import processes, total


def masked_bce_with_logits(logits: Tensor, target: Tensor, mask: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Binary cross entropy with logits over the unmasked entries, averaged over them.

    The paper's formula sums over the findings; like its code (and PyTorch's ``BCEWithLogitsLoss``) this takes the mean,
    which only rescales the gradient, by a factor that AdamW divides out. A masked entry has exactly no influence. With
    nothing unmasked the loss is 0, with zero gradient.

    Where several processes train together, the average is one over the entries of all of them: the mean of the
    processes' losses, and of their gradients, is then that of one process with the whole batch.

    Args:
        logits: (B, L).
        target: (B, L) in [0, 1].
        mask: (B, L) bool, True where the target counts.
        weight: multiplies the entries' losses, (L,) or a number; the average stays one over the number of entries.

    Returns:
        Scalar, float32 at least.
    """
    losses = nnf.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return (weight * losses.where(mask, 0)).sum() * processes() / total(mask.sum()).clamp(min=1)


class DistillationTerms(NamedTuple):
    """What :class:`DistillationLoss` gives.

    Attributes:
        total: scalar; what is minimised.
        base: scalar; the loss on the labels alone, without its factor.
        distill: scalar; the loss against the teacher alone, without its factor.
        weights: (L,) the weight of each finding in ``distill``, 0 where the teacher does not know it.
        regions: scalar; how far the MXA blocks' boxes are from the teacher's regions, without its factor; None where
            that is not taught.
    """

    total: Tensor
    base: Tensor
    distill: Tensor
    weights: Tensor
    regions: Tensor | None = None


class DistillationLoss:
    """L = (1 - alpha) BCEWithLogits(o_s, Y) + alpha L_distill [3.4, 5.3].

    With p_t = sigmoid(o_t) the distillation loss is, per entry and then averaged as in :func:`masked_bce_with_logits`,

    * soft: tau^2 w_j BCEWithLogits(o_s / tau, sigmoid(o_t / tau)). The factor tau^2 is Hinton's: the gradient of the
      rest shrinks like 1 / tau^2, and alpha should not change its meaning with tau. At tau = 1 this is the paper's.
    * hard: w_j BCEWithLogits(o_s, 1[p_t > 0.5]).

    w_j = 1 - mean_i p_ij [5.2], over the images of the whole batch of this step on all ranks; 1 without dynamic
    weights. p_ij is the teacher's probability (at tau = 1), whatever its type. Where several batches are accumulated
    for one update each has its own weights.

    An entry counts in the base loss where its label counts, and in the distillation loss where moreover the teacher
    knows the finding (with ``teach_masked`` also where the label does not count).

    Args:
        config: everything but the teacher and its cache.
        known: (L,) bool, findings that the teacher knows.
    """

    def __init__(self, config: KdConfig, known: Tensor) -> None:
        self.config = config
        self.known = known

    def to(self, device: torch.device) -> "DistillationLoss":
        """The same on another device."""
        return DistillationLoss(self.config, self.known.to(device))

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor, mask: Tensor) -> DistillationTerms:
        """Compare one batch.

        Args:
            student: (B, L) logits.
            teacher: (B, L) logits; what stands in unknown columns does not matter.
            target: (B, L) labels in [0, 1].
            mask: (B, L) bool, True where the label counts.
        """
        config, tau = self.config, self.config.tau
        teacher = teacher.detach().to(student.dtype)
        probability = teacher.sigmoid()
        weights = 1 - _global_mean(probability) if config.dynamic_weights else torch.ones_like(probability[0])
        weights = weights.where(self.known, 0)
        taught = self.known.expand_as(mask) if config.teach_masked else mask & self.known
        if config.type == "soft":
            told = (teacher / tau).sigmoid()
            distill = tau**2 * masked_bce_with_logits(student / tau, told, taught, weights)
        else:
            distill = masked_bce_with_logits(student, (probability > 0.5).to(student.dtype), taught, weights)
        base = masked_bce_with_logits(student, target, mask)
        kept: Tensor | float = 1 - config.alpha
        if config.full_weight_untaught:
            kept = kept + config.alpha * (~self.known).to(student.dtype)
        weighted = masked_bce_with_logits(student, target, mask, kept)
        return DistillationTerms(weighted + config.alpha * distill, base.detach(), distill.detach(), weights)


def _global_mean(probability: Tensor) -> Tensor:
    """(B, L) -> (L,) mean over the images of all ranks."""
    sums = total(torch.cat([probability.sum(0), probability.new_full((1,), len(probability))]))
    return sums[:-1] / sums[-1]
