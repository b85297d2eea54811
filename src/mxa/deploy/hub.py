"""Models on the Hugging Face hub: fetch one, publish one."""

from pathlib import Path
from types import ModuleType

from mxa.errors import ArtifactError

FILES = ("*.safetensors", "*.json", "*.md", "*.onnx", "*.xml", "*.bin")
"""What belongs to a model; nothing else of a folder is published or fetched.

Not the files of torch.export: opening one can run any code."""


def download(repo_id: str, revision: str | None = None) -> Path:
    """Fetch a model into the hub's cache, or find it there.

    With ``HF_HUB_OFFLINE=1`` the network is left alone and the cache must have it.

    Args:
        repo_id: "owner/name".
        revision: branch, tag or commit; None is the main branch. A commit pins the model.

    Returns:
        The folder in the cache.

    Raises:
        ArtifactError: huggingface_hub is not installed, or the model cannot be had.
    """
    hub = _huggingface_hub()
    try:
        return Path(hub.snapshot_download(repo_id, revision=revision, allow_patterns=list(FILES)))
    except _failures(hub) as error:
        raise ArtifactError(
            f"{repo_id} is no path here, and as a Hugging Face id it is neither in the cache nor can it be fetched "
            f"({error}); correct the path, or fetch it on a machine with a network and copy the folder"
        ) from error


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    message: str = "Upload an mxa model",
    token: str | None = None,
) -> str:
    """Publish a saved model's folder, with the exported files that are in it.

    Args:
        folder: a saved model.
        repo_id: "owner/name"; made if missing.
        private: of a new repository.
        revision: branch; None is the main branch.
        message: of the commit.
        token: of the hub; None is the one that ``hf auth login`` stored.

    Returns:
        The commit's address.

    Raises:
        ArtifactError: the folder holds no saved model, huggingface_hub is not installed, or the hub refuses.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"{folder} is not a saved model: it has no config.json; give the folder RUN/model")
    hub = _huggingface_hub()
    api = hub.HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            allow_patterns=list(FILES),
        )
    except _failures(hub) as error:
        raise ArtifactError(f"{folder} could not be published as {repo_id} ({error})") from error
    return str(commit.commit_url)


def _failures(hub: ModuleType) -> tuple[type[Exception], ...]:
    """Offline, missing, refused and misnamed; the HTTP client's own errors are no OSError."""
    return OSError, ValueError, hub.errors.HTTPError


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ArtifactError("huggingface_hub is not installed; `pip install 'mxa[hub]'` brings it") from error
    return huggingface_hub
