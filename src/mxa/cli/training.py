"""Commands that train: one model, teachers, the demo, the paper's grid."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mxa.cli.shared import Command, advance, figures, from_namespace, is_first_process
from mxa.memory import keep_freed_memory
from mxa.quiet import quiet_lightning
from mxa.reproduce.config import ReproduceConfig
from mxa.training.config import TrainConfig


def _train_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Train one model. Every option can stand in a YAML file (--config) and be overridden behind it: "
        "mxa train --config configs/mxa.yaml --data.root ROOT --optim.epochs 100",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run from its last checkpoint")
    parser.add_class_arguments(TrainConfig)
    return parser


def _train(options: Namespace) -> int:
    from mxa.training.run import train

    _prepare()
    config = from_namespace(TrainConfig, _train_parser(), options)
    with logging_redirect_tqdm():
        result = train(config, resume=options.resume)
    if is_first_process():
        shown = figures(result.validation.to_dict())
        print(f"{result.model}: {shown} on the validation split (used to choose the epoch)")
    return 0


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Draw phantom data, train EfficientViT-M0 without and with MXA and distilled from a small teacher, "
        "write a report.",
    )
    parser.add_argument("--out", type=str, default="runs/demo", help="new folder for data, runs and report")
    parser.add_argument("--images", type=int, default=5600, help="phantom images over all splits")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each model, at least 3")
    parser.add_argument("--seed", type=int, default=0, help="of data and training")
    return parser


def _demo(options: Namespace) -> int:
    from mxa.demo import run_demo

    _prepare()
    report = run_demo(Path(options.out), images=options.images, epochs=options.epochs, seed=options.seed)
    print(f"open {report}")
    return 0


def _reproduce_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Train a grid of cells and seeds, score it, and write the paper's tables and figures with paired "
        "intervals. A finished run is not repeated and a killed one goes on: call it again.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(ReproduceConfig)
    return parser


def _reproduce(options: Namespace) -> int:
    from mxa.reproduce.report import write_grid_report
    from mxa.reproduce.runs import run_grid

    _prepare()
    config: ReproduceConfig = from_namespace(ReproduceConfig, _reproduce_parser(), options)
    with logging_redirect_tqdm():
        run_grid(config)
    print(f"open {write_grid_report(config)}")
    return 0


def _convert_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Make a saved model of a TorchXRayVision DenseNet-121: its download is a pickle, which is opened "
        "here, once, and nowhere else. The library keeps it in ~/.torchxrayvision/models_data; where it is missing it "
        "is downloaded.",
    )
    parser.add_argument(
        "weights", type=str, help="densenet121-res224-chex, -all, -nih, -pc, -rsna, -mimic_nb or -mimic_ch"
    )
    parser.add_argument("--out", type=str, required=True, help="new folder for the saved model")
    parser.add_argument("--cache_dir", type=str, default=None, help="folder of the library's file, if it is another")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="open the file even if it holds more than a DenseNet; it can run any code on this machine",
    )
    return parser


def _convert(options: Namespace) -> int:
    from mxa.models.artifact import load
    from mxa.models.xrv import convert

    folder = convert(options.weights, Path(options.out), options.cache_dir, trust=options.trust)
    print(f"{folder}: {options.weights} as a saved model of {', '.join(load(folder).labels)}")
    return 0


def _teacher_predict_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Run kd.teacher once over the training and validation images and store its logits in kd.cache. "
        "Takes the options of `mxa train`; data, pack, preprocess, kd and workers count. The same options then train "
        "from the cache. A killed run goes on when it is called again.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(TrainConfig)
    return parser


def _teacher_predict(options: Namespace) -> int:
    from mxa.training.teacher_cache import fill_cache

    config: TrainConfig = from_namespace(TrainConfig, _teacher_predict_parser(), options)
    with tqdm(unit="image", disable=None) as bar:
        folder = fill_cache(config, progress=advance(bar))
    print(f"{folder}: the teacher's logits of the training and validation images; train with --kd.cache {folder}")
    return 0


def _prepare() -> None:
    quiet_lightning()
    keep_freed_memory()


COMMANDS = {
    "train": Command("train a model and save it with its validation figures", _train_parser, _train),
    "demo": Command(
        "phantom data, training without and with MXA and a teacher, a report: the whole way without any data",
        _demo_parser,
        _demo,
    ),
    "reproduce": Command("the paper's experiments, one thing changed at a time", _reproduce_parser, _reproduce),
    "teacher convert": Command(
        "make a saved model of one of TorchXRayVision's DenseNet-121 classifiers", _convert_parser, _convert
    ),
    "teacher predict": Command(
        "store a teacher's logits of a data set, for kd.cache", _teacher_predict_parser, _teacher_predict
    ),
}
