"""From teachers' outputs to the student's findings: the paper's transformation layer [5.1].

Columns are matched by name. A finding that no teacher knows is marked as unknown, and whoever uses the output must
leave it out; the authors' code set its logit to 0 instead, which teaches p = 0.5 (spec, known mistake 8).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from mxa.errors import ConfigError
from mxa.labels import NO_FINDING, NO_FINDING_RULES, SUPPORT_DEVICES, LabelSet, canonical, map_columns


def no_finding_logit(logits: Tensor) -> Tensor:
    """The logit of q = prod_i (1 - sigmoid(o_i)), the probability that none of M independent findings is there [5.1].

    With s = -log q = sum_i softplus(o_i) the logit is -log(exp(s) - 1). Written like that it overflows for large s and
    is infinite for s that round to 0, so log s is kept beside s: for s > 1 the logit is -s - log(1 - exp(-s)), for
    smaller s it is -log s - log((exp(s) - 1) / s). Every gradient lies in [-1, 0].

    Args:
        logits: (..., M), M at least 1; |logit| may reach 1e4 in any float type.

    Returns:
        (...) float32 at least: at 1e4 the result exceeds what float16 can hold.
    """
    o = logits.to(torch.promote_types(logits.dtype, torch.float32))
    softplus = -nnf.logsigmoid(-o)
    s = softplus.sum(-1)
    # log softplus(o) is o itself, to the last bit, where exp(o) is below the precision.
    log_softplus = torch.where(o <= -40, o, (-nnf.logsigmoid(-o.clamp(min=-40))).log())
    log_s = log_softplus.logsumexp(-1)
    # Each branch gets arguments at which it is finite, or the branch not taken would put NaN into the gradient.
    small, large = s.clamp(1e-30, 1), s.clamp(min=1)
    return torch.where(s > 1, -large - (-(-large).exp()).log1p(), -log_s - (small.expm1() / small).log())


class TeacherOutputAdapter(nn.Module):
    """Reorders and combines the raw logits of one or several teachers for a student's findings [5.1].

    A finding's logit is the mean over the teachers that know it. A teacher without an output for "No Finding" gets one
    from :func:`no_finding_logit` over all pathologies that it knows, also those that the student does not have; support
    devices are no pathology.

    Args:
        names: for each teacher the names of its outputs, in its order and spelling; '' marks an output that was never
            trained, which is used nowhere.
        labels: the student's L findings.
        no_finding: "product" (the paper's) or "ignore" (teach "No Finding" only where a teacher has an output for it;
            right for a teacher of few pathologies, whose absence says little).

    Attributes:
        known: (L,) bool, True where some teacher knows the finding.

    Raises:
        ConfigError: a teacher has no finding in common with the student, or ``no_finding`` is unknown.
        DataError: two outputs of a teacher mean the same finding.
    """

    known: Tensor
    share: Tensor

    def __init__(self, names: Sequence[Sequence[str]], labels: LabelSet, no_finding: str = "product") -> None:
        super().__init__()
        if no_finding not in NO_FINDING_RULES:
            raise ConfigError(f"no_finding is {no_finding!r}; choose one of {', '.join(NO_FINDING_RULES)}")
        if not names:
            raise ConfigError("no teacher is given; kd.teacher must name at least one")
        parts = [_TeacherPart(own, labels, no_finding) for own in names]
        self.parts = nn.ModuleList(parts)
        self.widths = [len(own) for own in names]
        by_teacher = torch.stack([part.known for part in parts])
        self.register_buffer("known", by_teacher.any(0))
        self.register_buffer("share", by_teacher / by_teacher.sum(0).clamp(min=1))

    def forward(self, outputs: Tensor) -> Tensor:
        """Adapt raw logits.

        Args:
            outputs: (..., T) the teachers' raw logits side by side, T outputs in all.

        Returns:
            (..., L) logits, float32 at least, 0 where ``known`` is False.
        """
        if outputs.shape[-1] != sum(self.widths):
            raise ValueError(f"{outputs.shape[-1]} teacher outputs, expected {sum(self.widths)}")
        adapted = [part(own) for part, own in zip(self.parts, outputs.split(self.widths, -1), strict=True)]
        return (torch.stack(adapted, -2) * self.share).sum(-2)


class _TeacherPart(nn.Module):
    """One teacher's share: its logits by the student's columns, 0 where it does not know the finding."""

    known: Tensor
    column: Tensor
    pathologies: Tensor

    def __init__(self, names: Sequence[str], labels: LabelSet, no_finding: str) -> None:
        super().__init__()
        column = torch.from_numpy(map_columns(names, labels))
        if not (column >= 0).any():
            own = ", ".join(name for name in names if name) or "none"
            raise ConfigError(
                f"the teacher has no finding in common with the student. The teacher's: {own}; the student's: "
                f"{', '.join(labels)}. Choose another kd.teacher or other data.labels"
            )
        pathologies = [
            i for i, name in enumerate(names) if name and canonical(name) not in {NO_FINDING, SUPPORT_DEVICES}
        ]
        derived = NO_FINDING in labels.findings and no_finding == "product" and bool(pathologies)
        self.derived = labels.index(NO_FINDING) if derived and column[labels.index(NO_FINDING)] < 0 else None
        known = column >= 0
        if self.derived is not None:
            known[self.derived] = True
        self.register_buffer("known", known)
        self.register_buffer("column", column.clamp(min=0))
        self.register_buffer("pathologies", torch.tensor(pathologies, dtype=torch.long))

    def forward(self, outputs: Tensor) -> Tensor:
        """(..., T) -> (..., L)."""
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        adapted = outputs[..., self.column].where(self.known, 0)
        if self.derived is not None:
            adapted[..., self.derived] = no_finding_logit(outputs[..., self.pathologies])
        return adapted
