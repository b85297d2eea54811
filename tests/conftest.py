"""Small data sets made on the spot, and the real ones where they are at hand."""

import csv
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from mxa.data.augment import Augment
from mxa.data.options import DataOptions
from mxa.labels import CHEXPERT14
from mxa.preprocess import Preprocess
from mxa.training.config import ModelConfig, OptimConfig, TrainConfig

REPOSITORY = Path(__file__).resolve().parents[1]
ROOT_NAME = "CheXpert-v1.0-small"
XRV_FILE = "chex-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
"""What TorchXRayVision calls the weights densenet121-res224-chex."""


LONGEST = (
    "test_readme.py",
    "test_run.py",
    "test_distillation.py",
    "test_docs.py",
    "test_distributed.py",
    "test_cli.py",
    "test_grid.py",
    "test_benchmark_scripts.py",
)
"""Files that take a minute or more."""
SMALL_RUN = [
    *("--preprocess.size", "64", "--augment.randaugment=", "--progress", "false"),
    *("--optim.epochs", "2", "--optim.batch_size", "8", "--optim.lr_batch_size", "8"),
    *("--optim.warmup_epochs", "0", "--optim.cooldown_epochs", "0"),
]
"""Options that make any training command one of seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a file stays with one process, and the other should not wait for it at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def write_chexpert(folder: Path, patients: dict[str, int], seed: int = 0, side: int = 64) -> Path:
    """A learnable data set in CheXpert's layout: finding j brightens square j of a 4 x 4 grid.

    Two images (frontal, lateral) per patient; every fourth patient is normal; in training some labels are uncertain or
    blank.
    """
    rng = np.random.default_rng(seed)
    root = folder / ROOT_NAME
    number = 0
    for split, count in patients.items():
        rows = []
        for _ in range(count):
            number += 1
            present = rng.random(14) < (0.1 if number % 4 == 0 else 0.4)
            present[1:13] &= number % 4 != 0
            present[0] = not present[1:13].any()
            cells = ["1.0" if there else "0.0" for there in present]
            if split == "train":
                cells = [c if rng.random() < 0.8 else ("-1.0" if c == "1.0" else "") for c in cells]
                cells[0] = "1.0" if present[0] else ""
            for view, projection in (("view1_frontal", "AP"), ("view2_lateral", "")):
                relative = f"{split}/patient{number:05d}/study1/{view}.jpg"
                file = root / relative
                file.parent.mkdir(parents=True, exist_ok=True)
                draw_grid(present, rng, side).save(file, quality=95)
                side_name = "Frontal" if projection else "Lateral"
                rows.append([f"{ROOT_NAME}/{relative}", "Female", 60, side_name, projection, *cells])
        with (root / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT14.findings])
            writer.writerows(rows)
    return folder


def draw_grid(present: np.ndarray, rng: np.random.Generator, side: int) -> Image.Image:
    pixels = rng.integers(40, 80, (side, side)).astype(np.uint8)
    cell = side // 4
    for j in np.flatnonzero(present):
        top, left = divmod(int(j), 4)
        pixels[top * cell : (top + 1) * cell, left * cell : (left + 1) * cell] += 120
    return Image.fromarray(pixels)


def xrv_densenet() -> nn.Module:
    """A stand-in for TorchXRayVision's densenet121-res224-chex: its network, names and operating points, random weights
    and batch norm statistics that fit them.
    """
    import torchxrayvision

    torch.manual_seed(0)
    model = torchxrayvision.models.DenseNet(num_classes=18)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    model.train()(torch.rand(4, 1, 224, 224) * 2048 - 1024)
    known = torchxrayvision.models.model_urls["densenet121-res224-chex"]
    model.targets = model.pathologies = known["labels"]
    del model.op_threshs  # a plain attribute, as when the files were made; the library of today has a buffer
    model.op_threshs = torch.tensor(known["op_threshs"])
    return model.eval()


class _Backend:
    """Pickles as every module's ``_backend`` did before 2020."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        from torch.nn.backends.thnn import _get_thnn_function_backend

        return _get_thnn_function_backend, ()


def write_xrv_weights(folder: Path, file: str = XRV_FILE, *, legacy: bool = False) -> Path:
    """The stand-in as TorchXRayVision publishes its weights, a pickled module; ``legacy`` as by the PyTorch of 2020."""
    model = xrv_densenet()
    folder.mkdir(parents=True, exist_ok=True)
    if legacy:
        for module in model.modules():
            del module._non_persistent_buffers_set
            module._backend = _Backend()
    torch.save(model, folder / file, _use_new_zipfile_serialization=not legacy)
    return folder


def put_into_hub_cache(hub: Path, model: str, state: dict[str, torch.Tensor]) -> None:
    """A weights file where the Hugging Face cache would have put timm's download."""
    folder = hub / f"models--timm--{model}"
    snapshot = folder / "snapshots" / "0" / "model.safetensors"
    snapshot.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0")
    save_file({key: value.contiguous() for key, value in state.items()}, snapshot)


def small_config(root: Path, out: Path, optim: OptimConfig) -> TrainConfig:
    """A training run of seconds on :func:`write_chexpert`'s data: M0 with MXA at 64 px, no augmentation."""
    return TrainConfig(
        out=str(out),
        data=DataOptions(root=str(root)),
        preprocess=Preprocess(size=64),
        augment=Augment(randaugment=""),
        model=ModelConfig(name="mxa_efficientvit_m0"),
        optim=optim,
        progress=False,
    )


def same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal to the bit."""
    return all(torch.equal(a[key], b[key]) for key in a)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process Ctrl-C's signal during one training step."""
    from mxa.training.module import ClassifierModule

    original = ClassifierModule.training_step

    def training_step(self: ClassifierModule, *arguments: object) -> object:
        if self.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ClassifierModule, "training_step", training_step)


@pytest.fixture(scope="session", autouse=True)
def _hear_ctrl_c() -> None:
    """A test run in the background is told to ignore Ctrl-C, and so would be what it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def xrv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like TorchXRayVision's cache, with the stand-in in it."""
    return write_xrv_weights(tmp_path_factory.mktemp("xrv"))


@pytest.fixture(scope="session")
def tiny_chexpert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training, 16 validation and 12 test images in CheXpert's layout. Do not change its files."""
    return write_chexpert(tmp_path_factory.mktemp("tiny"), {"train": 20, "valid": 8, "test": 6})


@pytest.fixture(autouse=True)
def no_picture_of_regions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a fifth of a small run's time; the fixture's run of test_region_watch.py is drawn all the same."""
    if request.path.parent.name == "training":
        monkeypatch.setattr("mxa.training.run.save_figure", lambda figure, file: None)


@pytest.fixture(scope="session")
def nih1000() -> Path:
    """The 790 real radiographs of NIH ChestX-ray14, where they are."""
    folder = Path(os.environ.get("MXA_NIH1000", REPOSITORY.parent / "shared" / "data" / "nih1000"))
    if not folder.is_dir():
        pytest.skip("the nih1000 images are not here; set MXA_NIH1000 to their folder")
    return folder
