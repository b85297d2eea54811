"""Boxes and gradients against plain loops; what a run writes of them, and when it warns."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import mxa  # noqa: F401
from conftest import small_config
from mxa.data.images import read_grey
from mxa.data.options import read
from mxa.models.build import build_model
from mxa.training.config import ModelConfig, OptimConfig, TrainConfig
from mxa.training.module import ClassifierModule
from mxa.training.region_watch import (
    BlockRegions,
    GradientSizes,
    box_statistics,
    gradient_groups,
    last_epoch,
    read_regions,
    to_record,
    warn_if_the_same,
)
from mxa.training.run import train

BLOCKS = [f"stages.{stage}.blocks.{block}" for stage, depth in enumerate((1, 2, 3)) for block in range(depth)]
"""M0's."""
OPTIM = OptimConfig(epochs=2, batch_size=2, lr_batch_size=2, warmup_epochs=0, cooldown_epochs=0, ema_decay=0.9)
"""20 steps per epoch on the tiny data set, of which the first and the eleventh are measured."""


def looped(boxes: np.ndarray, first: list[float] | None = None) -> dict[str, float]:
    """The statistics, one number after the other."""

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    def spread(values: list[float]) -> float:
        middle = mean(values)
        return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / len(values))

    rows = [[float(corner) for corner in box] for box in boxes]
    area = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in rows]
    x, y = [(x1 + x2) / 2 for x1, _, x2, _ in rows], [(y1 + y2) / 2 for _, y1, _, y2 in rows]
    corners = [mean([row[i] for row in rows]) for i in range(4)]
    return {
        **dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True)),
        "area": mean(area),
        "area_spread": spread(area),
        "x": mean(x),
        "x_spread": spread(x),
        "y": mean(y),
        "y_spread": spread(y),
        "whole": sum(one >= 0.95 for one in area) / len(area),
        "moved": 0.0 if first is None else mean([abs(a - b) for a, b in zip(corners, first, strict=True)]),
    }


def random_boxes(images: int, dtype: type = np.float32) -> np.ndarray:
    rng = np.random.default_rng(0)
    low = rng.random((images, 2)) * 0.2
    low[: images // 3] *= 0.05
    return np.concatenate([low, 1 - low[::-1] * [1.0, 0.3]], axis=1).astype(dtype)


# ------------------------------------------------------------------ statistics


@pytest.mark.parametrize("images", [1, 2, 100])
@pytest.mark.parametrize("first", [None, [0.1, 0.2, 0.7, 0.95]])
def test_statistics_against_a_loop(images: int, first: list[float] | None) -> None:
    boxes = random_boxes(images)
    found = box_statistics(boxes, None if first is None else np.array(first))
    expected = looped(boxes, first)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert type(found[name]) is float
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-15), name
    if images == 100:
        assert 0 < found["whole"] < 1


def test_a_box_of_exactly_the_limit_is_whole() -> None:
    boxes = np.array([[0, 0, 1, 0.95], [0, 0, 1, 0.9499], [0, 0, 1, 1]])
    assert box_statistics(boxes)["whole"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (3, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs boxes \(N, 4\)"):
        box_statistics(np.zeros(shape))


# ------------------------------------------------------------------- gradients


def norm(tensors: list[torch.Tensor]) -> float:
    """In float64, one tensor after the other."""
    return math.sqrt(math.fsum(float(tensor.double().square().sum()) for tensor in tensors))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_gradient_sizes_against_a_loop(order: torch.memory_format) -> None:
    torch.manual_seed(0)
    model = timm.create_model("mxa_efficientvit_m0", in_chans=1, num_classes=14).to(memory_format=order)
    model(torch.randn(2, 1, 224, 224)).square().sum().backward()
    named = dict(model.named_parameters())
    named["head.linear.bias"].grad = None
    groups = gradient_groups(model)
    sizes = GradientSizes(groups)
    assert list(sizes.names) == [*BLOCKS, "backbone"]
    gradients, ratios = sizes().tolist()
    for name, gradient, ratio in zip(sizes.names, gradients, ratios, strict=True):
        if name == "backbone":
            own = [parameter for key, parameter in named.items() if ".mixer.mxa." not in key]
        else:
            own = [parameter for key, parameter in named.items() if key.startswith(f"{name}.mixer.mxa.region.")]
            assert len(own) == 5
        expected = norm([parameter.grad for parameter in own if parameter.grad is not None])
        assert expected > 0
        assert gradient == pytest.approx(expected, rel=1e-5), name
        assert ratio == pytest.approx(expected / norm([parameter.detach() for parameter in own]), rel=1e-5), name


def test_a_model_without_regions_has_no_groups() -> None:
    assert gradient_groups(nn.Linear(2, 3)) == {}
    assert gradient_groups(timm.create_model("efficientvit_m0", in_chans=1, num_classes=14)) == {}


# ------------------------------------------------------------------ whole runs


class Measured:
    """Gradients as they come to the clipping, and after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[dict[str, tuple[float, float, float]]] = []
        original = ClassifierModule.configure_gradient_clipping

        def clip(module: ClassifierModule, *args: object, **kwargs: object) -> None:
            before = self._sizes(module.model)
            original(module, *args, **kwargs)
            after = self._sizes(module.model)
            self.steps.append({name: (*sizes, after[name][0]) for name, sizes in before.items()})

        monkeypatch.setattr(ClassifierModule, "configure_gradient_clipping", clip)

    @staticmethod
    def _sizes(model: nn.Module) -> dict[str, tuple[float, float]]:
        named = dict(model.named_parameters())
        groups = {block: [key for key in named if key.startswith(f"{block}.mixer.mxa.region.")] for block in BLOCKS}
        groups["backbone"] = [key for key in named if ".mixer.mxa." not in key]
        sizes = {}
        for name, keys in groups.items():
            gradient = norm([named[key].grad for key in keys])
            sizes[name] = gradient, gradient / norm([named[key].detach() for key in keys])
        return sizes


@pytest.fixture(scope="module")
def run(tiny_chexpert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Measured, str]:
    """A finished run, the gradients of all its steps, and what it said."""
    config = small_config(tiny_chexpert, tmp_path_factory.mktemp("regions") / "run", OPTIM)
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mxa").addHandler(handler)
    with pytest.MonkeyPatch.context() as monkeypatch:
        measured = Measured(monkeypatch)
        train(config)
    logging.getLogger("mxa").removeHandler(handler)
    return config, measured, "\n".join(said)


def test_gradients_are_those_before_clipping_at_every_tenth_step(run: tuple[TrainConfig, Measured, str]) -> None:
    config, measured, _ = run
    assert len(measured.steps) == 40
    assert any(before != after for step in measured.steps[::10] for before, _, after in step.values())
    rows = read_regions(Path(config.out) / "regions.csv")
    assert [(row.epoch, row.block) for row in rows] == [(epoch, block) for epoch in range(2) for block in BLOCKS]
    for row in rows:
        steps = [measured.steps[20 * row.epoch], measured.steps[20 * row.epoch + 10]]
        for prefix, group in (("", row.block), ("backbone_", "backbone")):
            gradient, ratio = (np.mean([step[group][number] for step in steps]) for number in range(2))
            assert getattr(row, f"{prefix}gradient") == pytest.approx(gradient, rel=1e-5)
            assert getattr(row, f"{prefix}gradient_ratio") == pytest.approx(ratio, rel=1e-5)


def test_the_boxes_are_the_raw_weights_on_the_validation_images(run: tuple[TrainConfig, Measured, str]) -> None:
    """Scored one by one from the last checkpoint."""
    config = run[0]
    rows = read_regions(Path(config.out) / "regions.csv")
    model = build_model(config.model.name, 14, 64)
    state = torch.load(Path(config.out) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    model.eval()
    found: dict[str, list[np.ndarray]] = {block: [] for block in BLOCKS}
    for file in read(config.data).split("valid").files():
        pixels = torch.from_numpy(config.preprocess.resize(read_grey(file)))
        with torch.inference_mode():
            regions = model.forward_with_regions(config.preprocess.scale(pixels[None, None].float()))[1]
        for block, box in regions.items():
            found[block].append(box[0].numpy())
    for first, last in zip(rows[:6], rows[6:], strict=True):
        assert first.moved == 0
        assert last.moved > 0
        expected = looped(np.array(found[last.block]), [first.x1, first.y1, first.x2, first.y2])
        for name, value in expected.items():
            assert getattr(last, name) == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_the_numbers_reach_the_logger_the_picture_and_the_model(run: tuple[TrainConfig, Measured, str]) -> None:
    config = run[0]
    folder = Path(config.out)
    rows = read_regions(folder / "regions.csv")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    for block in BLOCKS:
        own = [row for row in rows if row.block == block]
        for name in ("area", "y_spread", "whole", "moved", "x2", "gradient", "backbone_gradient_ratio"):
            logged = [event.value for event in events.Scalars(f"region/{block}/{name}")]
            assert logged == pytest.approx([getattr(row, name) for row in own], rel=1e-6)
    assert (folder / "regions.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "model" / "config.json").read_text())["training"]["regions"]
    assert (record["epoch"], record["weights"]) == (1, "raw")
    assert record["blocks"] == to_record(rows[6:])
    assert record["blocks"][BLOCKS[2]]["area"] == rows[8].area


def test_a_run_whose_boxes_never_move_says_so(run: tuple[TrainConfig, Measured, str]) -> None:
    """40 steps move no box by more than a hair: the first thing these numbers are for."""
    config, _, said = run
    rows = last_epoch(read_regions(Path(config.out) / "regions.csv"))
    assert all(row.spread < 0.01 for row in rows)
    assert "the MXA blocks' regions are the same for all images" in said


@pytest.mark.parametrize("model", [ModelConfig("efficientvit_m0"), ModelConfig(options={"mxa_stages": []})])
def test_a_model_without_mxa_has_none_of_this(tiny_chexpert: Path, tmp_path: Path, model: ModelConfig) -> None:
    config = small_config(tiny_chexpert, tmp_path / "run", replace(OPTIM, epochs=1, batch_size=8))
    model = replace(model, name=model.name.replace("m5", "m0"))
    result = train(replace(config, model=model))
    assert not list(result.folder.glob("regions.*"))
    assert "regions" not in json.loads((result.model / "config.json").read_text())["training"]


def test_each_region_of_a_block_has_its_row(tiny_chexpert: Path, tmp_path: Path) -> None:
    config = small_config(tiny_chexpert, tmp_path / "run", replace(OPTIM, epochs=1, batch_size=8))
    options = {"mxa_regions": 2, "mxa_stages": [0]}
    train(replace(config, model=replace(config.model, options=options)))
    rows = read_regions(tmp_path / "run" / "regions.csv")
    assert [one.block for one in rows] == [f"stages.0.blocks.0.regions.{number}" for number in range(2)]
    assert rows[0].gradient == rows[1].gradient > 0, "the block's"
    assert rows[0].x < rows[1].x


# -------------------------------------------------------------------- warnings


def row(block: str = "stages.0.blocks.0", **changes: float) -> BlockRegions:
    """A living block's."""
    alive = dict.fromkeys(BlockRegions.__dataclass_fields__, 0.5) | {"epoch": 3, "block": block, "area_spread": 0.0}
    return BlockRegions(**{**alive, "x_spread": 0.0, "y_spread": 0.02, **changes})  # type: ignore[arg-type]


DEAD = [{"area": 0.95}, {"y_spread": 0.0099}]


@pytest.mark.parametrize("first", DEAD)
@pytest.mark.parametrize("second", DEAD)
def test_the_warning(caplog: pytest.LogCaptureFixture, first: dict[str, float], second: dict[str, float]) -> None:
    warn_if_the_same([row(**first), row("stages.1.blocks.0", **second)])
    assert "the same for all images" in caplog.text
    assert "tell nothing about where a finding is" in caplog.text


@pytest.mark.parametrize("alive", [{}, {"area": 0.949}, {"y_spread": 0.01}, {"y_spread": 0.0, "area_spread": 0.01}])
@pytest.mark.parametrize("dead", DEAD)
def test_one_living_block_is_enough(
    caplog: pytest.LogCaptureFixture, alive: dict[str, float], dead: dict[str, float]
) -> None:
    warn_if_the_same([row(**dead), row("stages.1.blocks.0", **alive)])
    assert caplog.text == ""


def test_the_record_has_no_number_that_json_lacks() -> None:
    record = to_record([row(gradient=float("nan"), gradient_ratio=float("inf"))])
    numbers = record["stages.0.blocks.0"]
    assert numbers["gradient"] is None
    assert numbers["gradient_ratio"] is None
    assert numbers["area"] == 0.5
    json.dumps(record, allow_nan=False)


def test_there_may_be_no_file(tmp_path: Path) -> None:
    assert read_regions(tmp_path / "regions.csv") == []
