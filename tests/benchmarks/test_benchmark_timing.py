"""The clock of the benchmarks, their limits, and their step, against independent computations."""

import copy
import importlib
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from timm.utils import adaptive_clip_grad
from torch import nn

from mxa.labels import CHEXPERT14
from mxa.preprocess import Preprocess
from mxa.training.config import OptimConfig

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """A benchmark's helper by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module(request.param)


def helper(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", [name], indirect=True, ids=[name])


@helper("timing")
class TestTiming:
    def test_spread_is_numpys(self, module: ModuleType) -> None:
        values = tuple(np.random.default_rng(0).random(8).tolist())
        spread = module.Spread.of(values)
        found = [spread.min, spread.quartiles[0], spread.median, spread.quartiles[1], spread.max]
        np.testing.assert_allclose(found, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
        assert module.Spread.of((3.0,)) == module.Spread(3.0, (3.0, 3.0), 3.0, 3.0)

    def test_rates_and_ratios(self, module: ModuleType) -> None:
        slow, fast = module.Timing((1.0, 10.0, 3.0)), module.Timing((0.5, 2.0, 3.0))
        assert slow.per_second(30).median == pytest.approx(10)
        assert slow.over(fast) == module.Spread(2.0, (1.5, 3.5), 1.0, 5.0)
        assert slow.times(2).seconds == (2.0, 20.0, 6.0)

    def test_sides_take_turns_after_warming_up(self, module: ModuleType) -> None:
        called: list[str] = []
        timings = module.interleaved({side: lambda side=side: called.append(side) for side in "abc"}, 4)
        assert "".join(called) == "abc" + "abc" + "bca" + "cab" + "abc"
        assert {side: (len(timing.seconds), timing.calls) for side, timing in timings.items()} == dict.fromkeys(
            "abc", (4, 1)
        )

    def test_short_calls_are_repeated_and_their_mean_is_kept(
        self, module: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [0.0]
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])

        def job() -> None:
            now[0] += 0.25

        timing = module.interleaved({"job": job}, 2, 1.1)["job"]
        assert timing.calls == 5
        assert timing.seconds == (0.25, 0.25)
        assert now[0] == 0.25 * (1 + 1 + 2 * 5)


class Small(nn.Module):
    """A grouped and a strided convolution and a head; remembers what a loop over its layers would count."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(6, 12, 3, padding=1, groups=3, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, len(CHEXPERT14))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.grouped(self.stem(image))).relu().mean((2, 3)))


@helper("limits")
class TestLimits:
    def test_operations_of_forward_and_backward(self, module: ModuleType) -> None:
        network, image = Small(), torch.randn(2, 1, 16, 16)
        stem, grouped, head = 6 * 8 * 8 * 9, 12 * 8 * 8 * 9 * 2, 12 * 14
        forward = 2 * 2 * (stem + grouped + head)  # a multiply-add is two, and there are two images
        assert module.count_flop(lambda: network(image)) == forward
        backward = 2 * 2 * (stem + 2 * grouped + 2 * head)  # the image needs no gradient
        assert module.count_flop(lambda: network(image).sum().backward()) == forward + backward

    def test_operations_of_a_transposed_convolution(self, module: ModuleType) -> None:
        layer, image = nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False), torch.randn(1, 4, 5, 5, requires_grad=True)
        assert module.count_flop(lambda: layer(image).sum().backward()) == 3 * 2 * 4 * 6 * 4 * 25

    def test_matrix_product(self, module: ModuleType) -> None:
        job = module.matrix_product(8, torch.float32)
        assert module.count_flop(job) == 2 * 8**3

    def test_share_of_the_limit(self, module: ModuleType) -> None:
        timing = importlib.import_module("timing").Timing((0.5, 2.0, 4.0))
        columns = module.arithmetic_columns({"a": timing}, {"a": 8_000_000_000}, 4, 16e9)
        assert columns == {"GFLOP/image": {"a": 2.0}, "GFLOP/s": {"a": 4.0}, "% of the limit": {"a": 25.0}}
        limit = module.describe_limit(timing, 1000, torch.float32)
        assert limit["gflop_per_s"]["median"] == 1.0


@helper("stepper")
class TestStepper:
    def test_a_step_is_the_whole_step(self, module: ModuleType) -> None:
        """Against one written with PyTorch and timm alone: loss, clipping, AdamW, average."""
        torch.manual_seed(0)
        batch = importlib.import_module("networks").random_batch(4, 16)
        optim = OptimConfig(agc=0.001, warmup_epochs=0)
        own = module.make_module(Small(), optim)
        network = copy.deepcopy(own.model)
        expected = self.independent(network, batch, optim)
        step = module.make_step(own, batch, bf16=False)
        before = {key: value.clone() for key, value in own.model.state_dict().items()}
        step()
        for key, value in own.model.state_dict().items():
            torch.testing.assert_close(value.cpu(), expected[key])
            assert not torch.equal(value, before[key]), key
            # The first update's average is the weights themselves.
            torch.testing.assert_close(own.ema.module.state_dict()[key].cpu(), expected[key])

    @staticmethod
    def independent(network: nn.Module, batch: tuple[torch.Tensor, ...], optim: OptimConfig) -> dict[str, torch.Tensor]:
        image, target, mask, _ = (part.cpu() for part in batch)
        network = network.cpu().train()
        logits = network((image.float() / 255 - Preprocess().mean) / Preprocess().std)
        losses = -(target * logits.sigmoid().log() + (1 - target) * (1 - logits.sigmoid()).log())
        losses[mask].mean().backward()
        unclipped = network.stem.weight.grad.clone()
        adaptive_clip_grad([p for n, p in network.named_parameters() if not n.startswith("head")], optim.agc)
        assert not torch.equal(unclipped, network.stem.weight.grad)
        matrices = [p for p in network.parameters() if p.ndim > 1]
        vectors = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        torch.optim.AdamW(groups, lr=optim.lr).step()
        return {key: value.cpu() for key, value in network.state_dict().items()}
