"""A grid's configuration: cells build on cells, changes are checked, shipped files load and say what they promise."""

from dataclasses import replace
from pathlib import Path

import pytest

from conftest import REPOSITORY
from mxa.cli.shared import from_namespace
from mxa.cli.training import _reproduce_parser
from mxa.data.augment import Augment
from mxa.errors import ConfigError
from mxa.models.build import build_model
from mxa.models.cost import forward_flop
from mxa.reproduce.config import Cell, ReproduceConfig, with_changes
from mxa.training.config import OptimConfig, TrainConfig

SHIPPED = sorted((REPOSITORY / "configs").glob("reproduce*.yaml"))
MXA = {"model": {"name": "mxa_efficientvit_m0"}}


def load(file: Path, *overrides: str) -> ReproduceConfig:
    parser = _reproduce_parser()
    return from_namespace(ReproduceConfig, parser, parser.parse_args(["--config", str(file), *overrides]))


def grid(**fields: object) -> ReproduceConfig:
    cells = {
        "baseline": Cell(),
        "mxa": Cell(title="+ MXA", versus="baseline", changes=MXA),
        "mxa_kd": Cell(versus="mxa", distilled=True),
    }
    return ReproduceConfig(**{"cells": cells, "teacher": "teachers/one", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_grid_loads_and_each_of_its_cells_is_a_run(file: Path) -> None:
    config = load(file)
    runs = [config.run(key, seed) for key in config.cells for seed in config.seeds]
    assert len({run.out for run in runs}) == len(config.cells) * len(config.seeds)
    for key in config.cells:
        model = config.run(key, 0).model
        build_model(model.name, 14, 64, options=model.options)


@pytest.mark.parametrize("name", ["reproduce.yaml", "reproduce-phantom.yaml"])
def test_the_papers_grids_have_its_three_cells_and_runs(name: str) -> None:
    config = load(next(file for file in SHIPPED if file.name == name))
    assert config.seeds == [0, 1, 2], "the paper has three runs"
    assert list(config.cells) == ["baseline", "mxa", "mxa_kd"]
    assert [cell.published for cell in config.cells.values()] == ["baseline", "mxa", "mxa_kd"]
    runs = [config.run(key, seed) for key in config.cells for seed in config.seeds]
    assert [bool(run.kd.teachers) for run in runs] == [False] * 6 + [True] * 3


def test_the_ablation_compares_equal_numbers_of_parameters() -> None:
    """ "Wide" is there to show what MXA's parameters would do elsewhere."""
    config = load(next(file for file in SHIPPED if file.name == "reproduce-ablation.yaml"))
    sizes = {}
    for key in ("plain", "wide", "mxa"):
        model = config.run(key, 0).model
        network = build_model(model.name, 14, config.base.preprocess.size, options=model.options)
        sizes[key] = sum(parameter.numel() for parameter in network.parameters())
    assert sizes["plain"] < 0.9 * sizes["mxa"]
    assert sizes["wide"] == pytest.approx(sizes["mxa"], rel=0.01)


def test_the_chexpert_grid_is_the_papers_recipe() -> None:
    config = load(REPOSITORY / "configs" / "reproduce.yaml", "--base.data.root", "ROOT")
    for key, name in (
        ("baseline", "efficientvit_m5"),
        ("mxa", "mxa_efficientvit_m5"),
        ("mxa_kd", "mxa_efficientvit_m5"),
    ):
        run = config.run(key, 1)
        assert (run.model.name, run.seed, run.data.root) == (name, 1, "ROOT")
        assert run.optim == OptimConfig()
        assert run.augment == Augment()
    assert config.run("mxa_kd", 0).kd.teachers == ("teachers/densenet121-res224-chex",)
    assert not config.run("mxa_kd", 0).kd.cache, "the paper's teacher sees the augmented pictures"


def test_the_commented_cells_of_the_shipped_grid_are_good_too(tmp_path: Path) -> None:
    text = (REPOSITORY / "configs" / "reproduce.yaml").read_text()
    file = tmp_path / "all.yaml"
    file.write_text("\n".join(line.removeprefix("#") if line.startswith("#  ") and "mxa " not in line else line
                              for line in text.splitlines()))  # fmt: skip
    config = load(file)
    assert list(config.cells) == ["baseline", "mxa", "mxa_kd", "kd", "u_zeros", "pretrained", "no_ema"]
    assert config.run("u_zeros", 0).data.policy.uncertain == "u-zeros"
    assert config.run("pretrained", 0).model.pretrained
    assert config.run("no_ema", 0).optim.ema_decay == 0
    assert config.run("kd", 0).model.name == "efficientvit_m5"
    assert config.run("kd", 0).kd.teachers


def test_a_cell_takes_over_the_changes_of_the_one_it_builds_on() -> None:
    config = grid(out="OUT", teacher_cache=True)
    assert config.run("baseline", 4) == replace(TrainConfig(), out="OUT/cells/baseline/seed-4", seed=4)
    distilled = config.run("mxa_kd", 4)
    assert distilled.model.name == "mxa_efficientvit_m0"
    assert distilled.kd.teachers == ("teachers/one",)
    assert distilled.kd.cache == "OUT/teacher_logits"
    assert config.title("mxa") == "+ MXA"
    assert config.title("baseline") == "baseline"


def test_a_cell_is_compared_with_further_ones() -> None:
    cells = {"a": Cell(), "b": Cell(versus="a"), "c": Cell(versus="b", also=["a"]), "d": Cell(also=["c", "a"])}
    config = grid(cells=cells)
    assert [config.compared_with(key) for key in cells] == [[], ["a"], ["b", "a"], ["c", "a"]]
    for wrong in (["e"], ["b"], ["c"], ["a", "a"]):
        with pytest.raises(ConfigError, match=rf"cells\.c\.also names '{wrong[0]}'; it must be another cell"):
            grid(cells={**cells, "c": Cell(versus="b", also=wrong)})


def test_the_control_of_the_pictures_crop_costs_the_same() -> None:
    config = load(REPOSITORY / "configs" / "reproduce-mxa-image.yaml")
    assert config.compared_with("image") == ["plain", "wide"]
    cost = {}
    for key in ("wide", "image", "image_one_box"):
        model = config.run(key, 0).model
        cost[key] = forward_flop(build_model(model.name, 14, 128, options=model.options), 128)
    assert cost["wide"] == pytest.approx(cost["image"], rel=0.01)
    assert cost["image_one_box"] == pytest.approx(cost["image"], rel=0.01)


def test_a_cell_adds_to_the_models_options() -> None:
    first = {"model": {"name": "mxa_efficientvit_m0", "options": {"mxa_stages": [0], "mxa_region": "moments"}}}
    cells = {
        "a": Cell(changes=first),
        "b": Cell(versus="a", changes={"model": {"options": {"mxa_region": "mean", "mxa_jitter": 0.1}}}),
    }
    config = grid(cells=cells)
    assert config.run("b", 0).model.options == {"mxa_stages": [0], "mxa_region": "mean", "mxa_jitter": 0.1}
    assert config.run("a", 0).model.options == {"mxa_stages": [0], "mxa_region": "moments"}


def test_a_cell_is_distilled_and_changes_how() -> None:
    cells = {"a": Cell(), "b": Cell(distilled=True, changes={"kd": {"regions": 1.0, "alpha": 0.2}})}
    run = grid(cells=cells).run("b", 0)
    assert (run.kd.teachers, run.kd.regions, run.kd.alpha) == (("teachers/one",), 1.0, 0.2)


def test_a_cell_may_give_fractions_of_epochs() -> None:
    optim = {"warmup_epochs": 2.5, "cooldown_epochs": 1.5, "region_warmup_epochs": 0.5}
    run = grid(cells={"a": Cell(changes={"optim": optim})}).run("a", 0)
    assert (run.optim.warmup_epochs, run.optim.cooldown_epochs, run.optim.region_warmup_epochs) == (2.5, 1.5, 0.5)


def test_cells_are_scored_on_the_same_images() -> None:
    cells = {"a": Cell(), "b": Cell(changes={"data": {"split_seed": 1}})}
    with pytest.raises(ConfigError, match=r"cells\.b\.changes\.data: .* only data\.policy may differ"):
        grid(cells=cells).run("b", 0)
    cells = {"a": Cell(), "b": Cell(changes={"data": {"policy": {"uncertain": "u-zeros"}}})}
    assert grid(cells=cells).run("b", 0).data.policy.uncertain == "u-zeros"


def test_an_own_teacher_is_a_run_of_the_first_seed() -> None:
    config = grid(out="OUT", teacher="", teacher_changes={"model": {"name": "densenet121"}}, seeds=[7, 8])
    run = config.teacher_run()
    assert (run.model.name, run.out, run.seed) == ("densenet121", "OUT/teacher", 7)
    assert config.run("mxa_kd", 8).kd.teachers == ("OUT/teacher/model",)


def test_the_phantom_takes_the_place_of_the_data() -> None:
    run = grid(out="OUT", phantom=50).run("mxa", 0)
    assert (run.data.root, run.data.dataset) == ("OUT/data", "chexpert")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"nam": "x"}}, r"cells\.a\.model\.nam is no option; there are: name, options"),
        ({"modell": {}}, r"cells\.a\.modell is no option"),
        ({"model": "mxa"}, r"cells\.a\.model is 'mxa'; give its options, nested"),
        ({"optim": {"epochs": "ten"}}, r"cells\.a\.optim\.epochs is 'ten', but 50 stands there"),
        ({"optim": {"epochs": True}}, r"optim\.epochs is True"),
        ({"optim": {"epochs": 1.5}}, r"optim\.epochs is 1\.5"),
        ({"model": {"pretrained": 1}}, r"model\.pretrained is 1"),
        ({"optim": {"ema_decay": 2.0}}, r"ema_decay"),
        ({"out": "x"}, r"cells\.a\.out: the grid itself sets out"),
        ({"seed": 1}, r"cells\.a\.seed: the grid itself sets seed"),
    ],
)
def test_wrong_changes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_changes(TrainConfig(), changes, "cells.a")


def test_numbers_and_lists_are_taken_as_a_file_gives_them() -> None:
    changes = {"optim": {"lr": 1}, "kd": {"teacher": ["a", "b"]}, "data": {"policy": {"smooth_ones": [0.6, 0.7]}}}
    config = with_changes(TrainConfig(), changes, "cells.a")
    assert config.optim.lr == 1
    assert config.kd.teachers == ("a", "b")
    assert config.data.policy.smooth_ones == (0.6, 0.7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cells": {}}, "cells is empty"),
        ({"cells": {"a": Cell(versus="b")}}, "versus is 'b', which is no cell; there are: a"),
        ({"cells": {"a": Cell(versus="b"), "b": Cell(versus="a")}}, "circle: a -> b -> a"),
        ({"cells": {"a/b": Cell()}}, "cannot be a folder's name"),
        ({"teacher": ""}, "neither teacher nor teacher_changes"),
        ({"teacher_changes": {"model": {}}}, "both say who teaches"),
        ({"seeds": []}, "seeds must be different numbers"),
        ({"seeds": [1, 1]}, "seeds must be different numbers"),
        ({"split": "train"}, "choose one of valid, test"),
        ({"jobs": -1}, "jobs and phantom must be 0 or more"),
        ({"groups": {"none": []}}, "groups.none is empty"),
        ({"groups": {"some": ["Lung Lesions"]}}, "Lung Lesion"),
    ],
)
def test_an_impossible_grid_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid(**fields)


def test_only_the_papers_configurations_are_published() -> None:
    with pytest.raises(ConfigError, match=r"published is 'best'; choose one of baseline, mxa, mxa_kd"):
        Cell(published="best")
