"""An 8-bit network comes with what it costs, measured against the float32 network, or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.metrics import roc_auc_score

from deploy.small import classifier, tuning
from mxa.data.options import DataOptions, read
from mxa.data.table import Table
from mxa.deploy.quantise import quantise_model
from mxa.errors import ConfigError, DataError
from mxa.labels import NIH14
from mxa.models.artifact import save
from mxa.predictor import open_predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = replace(classifier(), tuning=tuning().to_dict())
    return save(one, tmp_path_factory.mktemp("quantise") / "model")


@pytest.fixture(scope="module")
def table(tiny_chexpert: Path) -> Table:
    return read(DataOptions(root=str(tiny_chexpert)))


@pytest.mark.parametrize("name", ["m.onnx", "float32.onnx"])
def test_what_is_written_and_measured(folder: Path, table: Table, tmp_path: Path, name: str) -> None:
    measured_on, out = table.split("valid"), tmp_path / name
    report = quantise_model(folder, out, table.split("train").files()[:8], measured_on, rounds=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == [name, f"{name}.json"]

    predictors = {"float32": open_predictor(folder), "int8": open_predictor(out)}
    logits = {
        side: np.stack([one.logits for one in predictor.predict(measured_on.files())])
        for side, predictor in predictors.items()
    }
    assert (
        1e-3 < report.max_logit_difference == pytest.approx(np.abs(logits["int8"] - logits["float32"]).max(), abs=1e-3)
    )
    for j, finding in enumerate(measured_on.labels):
        mask, target = measured_on.mask[:, j], measured_on.target[:, j]
        if len(np.unique(target[mask])) < 2:
            assert finding not in report.auroc
            continue
        assert report.auroc[finding].int8 == pytest.approx(roc_auc_score(target[mask], logits["int8"][mask, j]))
    macro = report.auroc_macro
    assert macro.change == pytest.approx(np.mean([pair.int8 - pair.float32 for pair in report.auroc.values()]))
    assert report.measured_on == {"dataset": "chexpert", "splits": ["valid"], "images": 16}
    assert all(pair.float32 > 0 and pair.int8 > 0 for pair in report.images_per_s.values())
    assert list(report.images_per_s) == [1, 32]
    assert report.decisions_differing["0.5"] == pytest.approx(
        ((logits["int8"] > 0) != (logits["float32"] > 0)).mean(), abs=0.01
    )

    predictor = predictors["int8"]
    assert predictor.model_hash == predictors["float32"].model_hash == report.model_hash
    assert predictor.notes == (f"int8 network: macro AUROC {macro.change:+.4f} against float32 where it was measured",)
    assert predictor.predict(measured_on.files()[0]).notes == predictor.notes
    assert json.loads(Path(f"{out}.json").read_text())["measured"] == report.measured()

    graph = onnx.load(out).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    assert all(made_by[name] == "DequantizeLinear" for node in convolutions for name in node.input[:2])


def test_refusals(folder: Path, table: Table, tmp_path: Path) -> None:
    train, valid, out = table.split("train"), table.split("valid"), tmp_path / "m.onnx"
    unlabelled = replace(valid, mask=np.zeros_like(valid.mask))
    with pytest.raises(DataError, match="no finding has both positives and negatives"):
        quantise_model(folder, out, train.files(), unlabelled)
    with pytest.raises(DataError, match="calibrate and measure; take the calibration images from another split"):
        quantise_model(folder, out, valid.files()[:1], valid)
    with pytest.raises(DataError, match="no image was given"):
        quantise_model(folder, out, [], valid)
    with pytest.raises(DataError, match=r"the labels are of Atelectasis.*give the same label set"):
        quantise_model(folder, out, train.files(), replace(valid, labels=NIH14))
    with pytest.raises(ConfigError, match=r"must end in \.onnx"):
        quantise_model(folder, tmp_path / "m.xml", train.files(), valid)
    assert not list(tmp_path.iterdir())
