"""Conversion of TorchXRayVision's pickles: parity with the library, and what is refused."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchxrayvision
from torch import nn

from conftest import XRV_FILE, write_xrv_weights, xrv_densenet
from mxa.errors import ArtifactError, ConfigError
from mxa.labels import LABEL_SETS, NIH14, canonical
from mxa.models.artifact import load
from mxa.models.xrv import CONTRACT, WEIGHTS, convert

NAME = "densenet121-res224-chex"


def library_logits(folder: Path, grey: np.ndarray) -> tuple[torch.Tensor, list[str]]:
    """Raw logits as the spec says: classifier(features2(x)), on the library's own normalisation."""
    model = torchxrayvision.models.DenseNet(weights=NAME, cache_dir=str(folder))
    x = torch.from_numpy(torchxrayvision.utils.normalize(grey, 255)).unsqueeze(1)
    with torch.no_grad():
        return model.classifier(model.features2(x)), model.targets


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "of 2020"])
def test_raw_logits_equal_the_librarys(legacy: bool, tmp_path: Path) -> None:
    write_xrv_weights(tmp_path / "cache", legacy=legacy)
    classifier = load(convert(NAME, tmp_path / "model", tmp_path / "cache"))
    grey = np.random.default_rng(0).integers(0, 256, (3, 224, 224)).astype(np.uint8)
    expected, targets = library_logits(tmp_path / "cache", grey)
    named = [i for i, name in enumerate(targets) if name]
    assert tuple(canonical(targets[i]) for i in named) == classifier.labels.findings
    found = classifier.logits(torch.from_numpy(grey)[:, None])
    torch.testing.assert_close(found, expected[:, named], atol=1e-4, rtol=1e-4)
    assert found.std() > 0.05, "the stand-in must not be constant"
    # The library's own call gives something else: probabilities bent by the operating points.
    assert not torch.allclose(
        found,
        torchxrayvision.models.DenseNet(weights=NAME, cache_dir=str(tmp_path / "cache"))(
            torch.from_numpy(torchxrayvision.utils.normalize(grey, 255)).unsqueeze(1)
        )[:, named],
        atol=0.1,
    )


def test_the_contract_is_the_librarys_scaling() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_allclose(
        CONTRACT.scale(grey.astype(np.float64)), torchxrayvision.utils.normalize(grey, 255), atol=1e-3
    )
    assert (CONTRACT.size, CONTRACT.fit) == (224, "crop")


def test_the_folder_remembers_its_source(xrv_cache: Path, tmp_path: Path) -> None:
    folder = convert(NAME, tmp_path / "model", xrv_cache)
    source = load(folder).training["source"]
    assert source["file"] == XRV_FILE
    assert source["weights"] == NAME
    assert len(source["sha256"]) == 64
    assert source["outputs"] == torchxrayvision.models.model_urls[NAME]["labels"]
    assert source["library"].startswith("torchxrayvision 1.")
    card = (folder / "README.md").read_text()
    assert XRV_FILE in card
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_every_offered_model_is_one_of_the_librarys() -> None:
    for name in WEIGHTS:
        assert len(torchxrayvision.models.model_urls[name]["labels"]) == 18
        assert torchxrayvision.models.model_urls[name]["input_resolution"] == CONTRACT.size
    assert {n for n in torchxrayvision.models.model_urls if n.startswith("densenet121-res224-")} == set(WEIGHTS)


def test_other_weights_have_other_findings(tmp_path: Path) -> None:
    url = torchxrayvision.models.model_urls["densenet121-res224-nih"]["weights_url"]
    write_xrv_weights(tmp_path / "cache", file=url.rpartition("/")[2])
    labels = load(convert("densenet121-res224-nih", tmp_path / "model", tmp_path / "cache")).labels
    assert set(labels) == set(NIH14)
    assert labels.name not in LABEL_SETS


def test_the_librarys_own_cache_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_xrv_weights(tmp_path / ".torchxrayvision" / "models_data")
    assert load(convert(NAME, tmp_path / "model")).labels.name == NAME


def test_neither_file_nor_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"file://{tmp_path}/nowhere/{XRV_FILE}"
    monkeypatch.setitem(torchxrayvision.models.model_urls[NAME], "weights_url", url)
    with pytest.raises(ArtifactError, match="could not be downloaded") as caught:
        convert(NAME, tmp_path / "model", tmp_path / "cache")
    for part in (XRV_FILE, str(tmp_path / "cache"), url, "--cache_dir"):
        assert part in str(caught.value)
    assert not list((tmp_path / "cache").iterdir()), "no half file stays"


def test_a_missing_file_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real download code, from a URL that needs no network."""
    write_xrv_weights(tmp_path / "web")
    monkeypatch.setitem(torchxrayvision.models.model_urls[NAME], "weights_url", f"file://{tmp_path}/web/{XRV_FILE}")
    assert convert(NAME, tmp_path / "model", tmp_path / "cache").is_dir()
    assert (tmp_path / "cache" / XRV_FILE).is_file()


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def refused(folder: Path, tmp_path: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match):
        convert(NAME, tmp_path / "model", folder)
    assert not (tmp_path / "model").exists()


def test_a_pickle_that_runs_code_is_refused_unopened(tmp_path: Path) -> None:
    for legacy in (False, True):
        mark = tmp_path / "ran"
        model = xrv_densenet()
        model.extra = Attack(mark)
        torch.save(model, tmp_path / XRV_FILE, _use_new_zipfile_serialization=not legacy)
        refused(tmp_path, tmp_path, r"asks for \w+\.system.*--trust")
        assert not mark.exists()
    convert(NAME, tmp_path / "trusted", tmp_path, trust=True)
    assert mark.exists(), "--trust opens everything, as it says"


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    file = write_xrv_weights(tmp_path) / XRV_FILE
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, tmp_path, "damaged")
    file.write_bytes(b"")
    refused(tmp_path, tmp_path, "damaged")
    file.write_text("<html>404 Not Found</html>")
    refused(tmp_path, tmp_path, "damaged")
    torch.save(nn.Linear(2, 2), file)
    refused(tmp_path, tmp_path, "holds a Linear")
    file.write_bytes(pickle.dumps({"a": 1}))
    refused(tmp_path, tmp_path, "damaged|holds a dict")
    torch.save(xrv_densenet().state_dict(), file)
    refused(tmp_path, tmp_path, "holds a OrderedDict")


def test_a_densenet_of_another_shape_is_refused(tmp_path: Path) -> None:
    torch.save(torchxrayvision.models.DenseNet(num_classes=14), tmp_path / XRV_FILE)
    refused(tmp_path, tmp_path, "not of 18 outputs")
    torch.save(torchxrayvision.models.DenseNet(block_config=(2, 2, 2, 2)), tmp_path / XRV_FILE)
    refused(tmp_path, tmp_path, "not a DenseNet-121")
    model = xrv_densenet()
    with torch.no_grad():
        model.features.conv0.weight[0, 0, 0, 0] = float("nan")
    torch.save(model, tmp_path / XRV_FILE)
    refused(tmp_path, tmp_path, r"features\.conv0\.weight is not finite")


def test_conversion_checks_itself(xrv_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the library's network or scaling ever change, conversion stops instead of saving something else."""
    monkeypatch.setattr("mxa.models.xrv.CONTRACT", replace(CONTRACT, mean=0.449))
    refused(xrv_cache, tmp_path, r"differs from TorchXRayVision 1\.")


def test_unknown_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="densenet121-res224-rsna"):
        convert("resnet50-res512-all", tmp_path / "model")


def test_an_existing_model_is_not_overwritten(xrv_cache: Path, tmp_path: Path) -> None:
    convert(NAME, tmp_path / "model", xrv_cache)
    with pytest.raises(ArtifactError, match="already holds a model"):
        convert(NAME, tmp_path / "model", xrv_cache)


def test_the_librarys_warning_filter_stays_out() -> None:
    code = (
        "import warnings\nfrom mxa.models.xrv import _library\nbefore = list(warnings.filters)\n_library()\n"
        "assert warnings.filters == before, warnings.filters"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
