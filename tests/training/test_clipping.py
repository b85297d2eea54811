"""All units at once: timm's numbers, in either memory order, with a fixed number of operations."""

import pytest
import timm
import torch
from timm.utils import adaptive_clip_grad
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import mxa  # noqa: F401
from mxa.training.clipping import AdaptiveClip


class Count(TorchDispatchMode):
    """Counts what reaches the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.operations += not getattr(func, "is_view", False)
        return func(*args, **(kwargs or {}))


def graded(order: torch.memory_format, scale: float) -> list[nn.Parameter]:
    """M0's parameters with gradients, many of them to be clipped and many not; one of zeros, one without norm."""
    torch.manual_seed(0)
    model = timm.create_model("mxa_efficientvit_m0", in_chans=1, num_classes=14, img_size=64).to(memory_format=order)
    parameters = list(model.parameters())[:-2]
    for number, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape) * scale * 10.0 ** (number % 5 - 4)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
    parameters[0].grad.zero_()
    with torch.no_grad():
        parameters[5].zero_()
    return parameters


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_at_once_is_timms_walk(order: torch.memory_format, scale: float) -> None:
    ours, timms = graded(order, scale), graded(order, scale)
    before = [parameter.grad.clone() for parameter in ours]
    AdaptiveClip(ours, 0.02).at_once()
    adaptive_clip_grad(timms, 0.02)
    for one, other in zip(ours, timms, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=2e-6, atol=1e-9)
    changed = [not torch.equal(a, b.grad) for a, b in zip(before, ours, strict=True)]
    assert any(changed)
    assert not all(changed)


def test_the_number_of_operations_does_not_grow_with_the_parameters() -> None:
    counts = []
    for layers in (3, 30):
        parameters = [nn.Parameter(torch.randn(4, 3, 3, 3)) for _ in range(layers)]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        clip = AdaptiveClip(parameters, 0.02)
        with Count() as count:
            clip.at_once()
        counts.append(count.operations)
    assert counts[0] == counts[1] < 40


def test_the_cpu_takes_timms_own() -> None:
    ours, timms = graded(torch.channels_last, 1.0), graded(torch.channels_last, 1.0)
    AdaptiveClip(ours, 0.02)()
    adaptive_clip_grad(timms, 0.02)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours, timms, strict=True))


def test_a_missing_gradient_is_told() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\) has no gradient"):
        AdaptiveClip([nn.Parameter(torch.ones(2, 3))], 0.02).at_once()
