"""The masked loss against a float64 loop."""

import math

import pytest
import torch

from mxa.training.losses import masked_bce_with_logits


def loop(logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> float:
    total, count = 0.0, 0
    for o, y, m in zip(logits.flatten().tolist(), target.flatten().tolist(), mask.flatten().tolist(), strict=True):
        if m:
            p = 1 / (1 + math.exp(-o))
            total -= y * math.log(p) + (1 - y) * math.log(1 - p)
            count += 1
    return total / count


def test_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 14, generator=generator, dtype=torch.float64) * 3
    target = torch.rand(5, 14, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 14, generator=generator) < 0.6
    assert masked_bce_with_logits(logits, target, mask).item() == pytest.approx(loop(logits, target, mask), rel=1e-12)


def test_without_a_mask_it_is_pytorchs_loss() -> None:
    logits, target = torch.randn(4, 14), torch.rand(4, 14)
    expected = torch.nn.BCEWithLogitsLoss()(logits, target)
    torch.testing.assert_close(masked_bce_with_logits(logits, target, torch.ones(4, 14, dtype=torch.bool)), expected)


def test_masked_entries_have_exactly_no_gradient() -> None:
    logits = torch.randn(3, 14, requires_grad=True)
    mask = torch.rand(3, 14) < 0.5
    masked_bce_with_logits(logits, torch.rand(3, 14), mask).backward()
    assert (logits.grad[~mask] == 0).all()
    assert (logits.grad[mask] != 0).all()


def test_an_infinite_logit_under_the_mask_does_no_harm() -> None:
    logits = torch.tensor([[float("inf"), 0.0]], requires_grad=True)
    loss = masked_bce_with_logits(logits, torch.tensor([[0.0, 1.0]]), torch.tensor([[False, True]]))
    assert loss.item() == pytest.approx(math.log(2))


def test_all_masked_is_zero_without_gradient() -> None:
    logits = torch.randn(2, 14, requires_grad=True)
    loss = masked_bce_with_logits(logits, torch.rand(2, 14), torch.zeros(2, 14, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()
