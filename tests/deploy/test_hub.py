"""The hub through its own client, against local folders."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import huggingface_hub.errors
import pytest

from deploy.small import exported, pictures, saved
from mxa.deploy.hub import push_to_hub
from mxa.errors import ArtifactError
from mxa.predictor import open_predictor

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


class LocalApi:
    """Publishes into a hub cache."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.calls = cache, []

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append((repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], **_: object) -> object:
        repository = self.cache / f"models--{repo_id.replace('/', '--')}"
        snapshot = repository / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        names = [file.name for file in Path(folder_path).iterdir()]
        for name in huggingface_hub.utils.filter_repo_objects(names, allow_patterns=allow_patterns):
            shutil.copy(folder_path / name, snapshot)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/{COMMIT}")


def test_there_and_back(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(saved(), tmp_path / "model"))
    shutil.copy(exported("onnx"), folder)
    (folder / "notes.txt").write_text("not part of the model")
    api = LocalApi(cache)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: api)
    assert push_to_hub(folder, "clinic/model") == f"https://hub/clinic/model/commit/{COMMIT}"
    assert api.calls == [("clinic/model", True, True)]
    assert not list(cache.rglob("notes.txt"))
    pixels = pictures(2)
    for runtime in ("torch", "onnxruntime"):
        expected, _ = open_predictor(folder, runtime).score(pixels)
        for name in ("clinic/model", f"clinic/model@{COMMIT}"):
            found = open_predictor(name, runtime)
            assert found.runtime.name == runtime
            assert (found.score(pixels)[0] == expected).all()


def test_a_model_that_cannot_be_had(cache: Path) -> None:
    with pytest.raises(ArtifactError, match="clinic/none is no path here, and as a Hugging Face id"):
        open_predictor("clinic/none")


def test_what_is_no_model_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a saved model"):
        push_to_hub(tmp_path, "clinic/model")


@pytest.mark.parametrize("error", [OSError("no network"), huggingface_hub.errors.HTTPError("refused")])
def test_a_refusal_of_the_hub_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def create_repo(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: SimpleNamespace(create_repo=create_repo))
    with pytest.raises(ArtifactError, match=f"could not be published as clinic/model .{error}"):
        push_to_hub(saved(), "clinic/model")
