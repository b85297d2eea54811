"""The moving average: its arithmetic, its warm-up, and that the evaluated model is the averaged one."""

import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn

import mxa  # noqa: F401
from mxa.training.ema import Ema


def test_average_against_plain_arithmetic() -> None:
    model = nn.Linear(3, 2)
    ema = Ema(model, decay=0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 8):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        ema.update(model, step=step)
        decay = 0.0 if step <= 1 else min(0.9, 1 - step ** (-2 / 3))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.module.weight, expected)


def test_warm_up_forgets_the_initial_weights() -> None:
    """Known mistake 11: without warm-up 0.99996 ** 21800 = 42% of them would remain."""
    ema = Ema(nn.Linear(1, 1), decay=0.99996)
    remaining = 1.0
    for step in range(1, 21_800):
        remaining *= ema.get_decay(step)
    assert remaining == 0.0
    assert pytest.approx(0.418, abs=1e-3) == 0.99996**21_800


def test_refresh_scores_the_averaged_weights_not_a_stale_cache() -> None:
    model = timm.create_model("mxa_efficientvit_m0", in_chans=1, num_classes=14, img_size=64)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(0.7)
    ema = Ema(model, decay=0.5)
    x = torch.randn(2, 1, 64, 64)
    before = ema.refresh()(x)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention_biases" in name:
                parameter.add_(torch.randn_like(parameter) * 3)
    ema.update(model, step=1)
    stale = ema.module(x)
    fresh = ema.refresh()(x)
    copy = timm.create_model("mxa_efficientvit_m0", in_chans=1, num_classes=14, img_size=64)
    copy.load_state_dict(ema.module.state_dict())
    torch.testing.assert_close(fresh, copy.eval()(x))
    assert torch.equal(stale, before), "timm no longer caches its biases: refresh could go"
    assert not torch.allclose(fresh, before)


def test_only_the_model_is_trained() -> None:
    ema = Ema(nn.Linear(2, 2), decay=0.5)
    assert not any(parameter.requires_grad for parameter in ema.parameters())


def test_equal_to_timms_own_on_a_whole_network() -> None:
    """Parameters, statistics and the counting buffers, before and after a move that makes new tensors."""
    torch.manual_seed(0)
    model = timm.create_model("mxa_efficientvit_m0", in_chans=1, num_classes=14, img_size=64)
    ours, timms = Ema(model, 0.9), ModelEmaV3(model, 0.9, use_warmup=True)
    for step in range(1, 6):
        model.train()(torch.randn(4, 1, 64, 64))  # moves the statistics
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        if step == 3:
            ours = ours.double().float()
        ours.update(model, step=step)
        timms.update(model, step=step)
    own, theirs = ours.module.state_dict(), timms.module.state_dict()
    assert any(not value.is_floating_point() for value in own.values())
    for name, value in own.items():
        assert torch.equal(value, theirs[name]), name
