"""The command line: parses, calls one function, prints. Exit codes: 0 good, 1 the job failed, 2 wrong usage."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mxa.data.options import DataOptions, read
from mxa.errors import ConfigError, MxaError
from mxa.evaluation.assessment import AssessOptions
from mxa.evaluation.casefiles import PLURAL
from mxa.evaluation.tuning import RULES
from mxa.preprocess import Preprocess
from mxa.reproduce.config import ReproduceConfig
from mxa.training.config import TrainConfig
from mxa.version import __version__

DESCRIPTION = """Small, fast multi-label classifiers for chest radiographs (EfficientViT with the MXA block).

No data at hand?   mxa demo
Your own data:     mxa data check ROOT --dataset chexpert
                   mxa train --config configs/mxa.yaml --data.root ROOT --out runs/first
                   mxa evaluate runs/first/model --data ROOT --split valid --out runs/first/valid
Anybody's CSV:     mxa evaluate --predictions P.csv --labels L.csv --out DIR
The paper's grid:  mxa reproduce --config configs/reproduce.yaml --base.data.root ROOT
                   mxa predict runs/first/model IMAGES --out predictions.csv
With a teacher:    mxa teacher convert densenet121-res224-chex --out teachers/densenet121-res224-chex
                   mxa train --config configs/mxa_kd.yaml --data.root ROOT --out runs/distilled

`mxa COMMAND --help` explains each option. Research software; not for clinical use."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("mxa").setLevel(logging.INFO if _is_first_process() else logging.ERROR)
    args = _parser().parse_args(argv)
    command, options = _chosen(args)
    try:
        return COMMANDS[command](options)
    except ConfigError as error:
        print(f"mxa {command}: {error}", file=sys.stderr)
        return 2
    except MxaError as error:
        print(f"mxa {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"mxa {command}: stopped", file=sys.stderr)
        return 1


def _parser() -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(allow_abbrev=False, prog="mxa", description=DESCRIPTION, version=__version__)
    commands = parser.add_subcommands(dest="command")
    commands.add_subcommand("train", _train_parser(), help="train a model and save it with its validation figures")
    commands.add_subcommand("evaluate", _evaluate_parser(), help="score a saved model or a CSV of predictions")
    commands.add_subcommand(
        "calibrate", _calibrate_parser(), help="choose a model's thresholds and calibration on your validation data"
    )
    commands.add_subcommand("predict", _predict_parser(), help="probabilities for image files and folders")
    commands.add_subcommand(
        "demo", _demo_parser(), help="phantom data, two models, a report: the whole way without any data"
    )
    commands.add_subcommand(
        "reproduce", _reproduce_parser(), help="the paper's experiments, one thing changed at a time"
    )
    teacher = ArgumentParser(allow_abbrev=False, description="Get teachers ready for distillation.")
    commands.add_subcommand("teacher", teacher, help="convert teachers, and store what they say of a data set")
    teacher_commands = teacher.add_subcommands(dest="subcommand")
    teacher_commands.add_subcommand(
        "convert", _convert_parser(), help="make a saved model of one of TorchXRayVision's DenseNet-121 classifiers"
    )
    teacher_commands.add_subcommand(
        "predict", _teacher_predict_parser(), help="store a teacher's logits of a data set, for kd.cache"
    )
    data = ArgumentParser(allow_abbrev=False, description="Make and check data sets.")
    commands.add_subcommand("data", data, help="make and check data sets")
    data_commands = data.add_subcommands(dest="subcommand")
    data_commands.add_subcommand(
        "phantom", _phantom_parser(), help="draw a data set of phantom radiographs in CheXpert's layout"
    )
    data_commands.add_subcommand("pack", _pack_parser(), help="decode and resize once, for all runs")
    data_commands.add_subcommand("check", _check_parser(), help="look for broken images and labels")
    return parser


def _chosen(args: Namespace) -> tuple[str, Namespace]:
    """The command's full name and its own options."""
    command, options = args.command, args[args.command]
    if command in {"data", "teacher"}:
        return f"{command} {options.subcommand}", options[options.subcommand]
    return command, options


# ------------------------------------------------------------------- options


def _train_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Train one model. Every option can stand in a YAML file (--config) and be overridden behind it: "
        "mxa train --config configs/mxa.yaml --data.root ROOT --optim.epochs 10",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run from its last checkpoint")
    parser.add_class_arguments(TrainConfig)
    return parser


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


def _teacher_predict_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Run kd.teacher once over the training and validation images and store its logits in kd.cache. "
        "Takes the options of `mxa train`; data, preprocess, kd and workers count. The same options then train from "
        "the cache. A killed run goes on when it is called again.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(TrainConfig)
    return parser


def _add_data_options(parser: ArgumentParser, skip: set[str]) -> None:
    parser.add_class_arguments(DataOptions, skip=skip | {"root"})


def _check_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Report everything that is wrong with a data set, by file and row; exit 1 if anything is.",
    )
    parser.add_argument("root", type=str, help="the data set's folder")
    parser.add_argument("--no_pixels", action="store_true", help="check the tables only, open no image")
    _add_data_options(parser, set())
    return parser


def _phantom_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Draw phantom radiographs with CheXpert's layout, label statistics, boxes and masks.",
    )
    parser.add_argument("out", type=str, help="new folder")
    parser.add_argument("--images", type=int, default=2000, help="number of images over all splits")
    parser.add_argument("--size", type=int, default=320, help="short side in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument("--workers", type=int, default=None, help="drawing processes; default one per processor")
    return parser


def _pack_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Decode and resize a data set's pictures once, into one memory map that all runs share (`mxa train "
        "--pack DIR`). A killed run goes on when it is called again. `mxa data pack DIR --verify` checks a pack.",
    )
    parser.add_argument("root", type=str, help="the data set's folder; with --verify the pack's")
    parser.add_argument("--out", type=str | None, default=None, help="new folder for the pack")
    parser.add_argument("--verify", action="store_true", help="compare a pack with its checksums instead")
    parser.add_argument("--max_rejects", type=int, default=0, help="unreadable pictures that may be left out")
    parser.add_argument("--full_decode", action="store_true", help="decode large JPEGs in full, several times as slow")
    parser.add_argument("--workers", type=int | None, default=None, help="decoding threads; default one per processor")
    parser.add_class_arguments(Preprocess, "preprocess", skip={"mean", "std", "version"})
    _add_data_options(parser, set())
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Score a saved model, or anybody's predictions: writes report.html, metrics.json, tables (CSV, "
        "Markdown, LaTeX) and figures. mxa evaluate MODEL --data ROOT --split test --out DIR, or mxa evaluate "
        "--predictions P.csv --labels L.csv --out DIR.",
    )
    parser.add_argument("model", type=str | None, nargs="?", default=None, help="folder of the saved model")
    parser.add_argument(
        "--predictions",
        type=str | None,
        default=None,
        help="CSV instead of a model: a Path or Study column and some of the findings, probabilities or 0/1 decisions",
    )
    parser.add_argument("--data", type=str, default="", help="the data set's folder")
    parser.add_argument(
        "--split", type=str, default="valid", choices=["train", "valid", "test"], help="which part of it"
    )
    parser.add_argument(
        "--labels",
        type=str | None,
        default=None,
        help="CSV of labels, with --predictions, instead of a data set: a Path or Study column, the findings, and any "
        "other columns to group by",
    )
    parser.add_argument("--out", type=str, required=True, help="folder for the results")
    parser.add_argument(
        "--aggregate",
        type=str | None,
        default=None,
        choices=[None, "max", "mean"],
        help="score studies: the max or mean over a study's images (CheXpert's test set is scored by study)",
    )
    parser.add_argument(
        "--valid_predictions",
        type=str | None,
        default=None,
        help="CSV of the same model's predictions of validation data: they choose operating points and calibrations",
    )
    parser.add_argument("--valid_labels", type=str | None, default=None, help="CSV of their labels")
    parser.add_argument(
        "--against", type=str | None, default=None, help="CSV of another model's predictions, to compare with"
    )
    parser.add_argument(
        "--readers", type=list[str], default=[], help="CSVs of human readers' decisions: 0, 1 or blank for each finding"
    )
    parser.add_argument(
        "--findings", type=list[str], default=[], help="the files' findings, where they are not CheXpert's or NIH's"
    )
    parser.add_argument("--workers", type=int, default=0, help="loading processes")
    parser.add_class_arguments(AssessOptions)
    _add_data_options(parser, {"labels"})
    return parser


def _calibrate_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Choose a saved model's operating points (thresholds by finding) and fit its calibrations anew, on "
        "the validation split of a data set, such as your own hospital's; they are stored in the model.",
    )
    parser.add_argument("model", type=str, help="folder of the saved model")
    parser.add_argument("--data", type=str, required=True, help="the data set's folder")
    parser.add_argument(
        "--rules",
        type=list[str],
        default=list(RULES),
        help="the operating points: youden, f1, sensitivity=V, specificity=V, cost=V (a missed finding costs V times a "
        "false alarm)",
    )
    parser.add_argument("--workers", type=int, default=0, help="loading processes")
    _add_data_options(parser, {"labels"})
    return parser


def _predict_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False, description="Write the probabilities of each finding for image files and folders."
    )
    parser.add_argument("model", type=str, help="folder of the saved model")
    parser.add_argument("sources", type=str, nargs="+", help="image files, or folders (searched in depth)")
    parser.add_argument("--out", type=str, required=True, help="CSV file: path, the findings, error")
    return parser


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Draw phantom data, train EfficientViT-M0 without and with MXA and distilled from a small teacher, "
        "write a report.",
    )
    parser.add_argument("--out", type=str, default="runs/demo", help="new folder for data, runs and report")
    parser.add_argument("--images", type=int, default=5600, help="phantom images over all splits")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each model")
    parser.add_argument("--seed", type=int, default=0, help="of data and training")
    return parser


def _reproduce_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Train a grid of cells and seeds, score it, and write the paper's tables and figures with paired "
        "intervals. A finished run is not repeated and a killed one goes on: call it again.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(ReproduceConfig)
    return parser


# ------------------------------------------------------------------ commands


def _train(options: Namespace) -> int:
    from mxa.training.run import train

    _quiet_lightning()
    config = _from_namespace(TrainConfig, _train_parser(), options)
    with logging_redirect_tqdm():
        result = train(config, resume=options.resume)
    if _is_first_process():
        figures = _line(result.validation.to_dict())
        print(f"{result.model}: {figures} on the validation split (used to choose the epoch)")
    return 0


def _evaluate(options: Namespace) -> int:
    from mxa.evaluate import Sources, evaluate

    parser = _evaluate_parser()
    # Here --labels is a file; a data set has its own findings unless a model or --findings brings others.
    own = "nih14" if options.dataset == "nih" else "chexpert14"
    data: DataOptions = _from_namespace(DataOptions, parser, options, root=options.data, labels=own)
    sources = Sources(
        model=_path(options.model),
        predictions=_path(options.predictions),
        labels=_path(options.labels),
        data=data,
        split=options.split,
        valid_predictions=_path(options.valid_predictions),
        valid_labels=_path(options.valid_labels),
        against=_path(options.against),
        readers=[Path(file) for file in options.readers],
        aggregate=options.aggregate,
        findings=options.findings,
    )
    looked_at: AssessOptions = _from_namespace(AssessOptions, parser, options)
    found = evaluate(sources, looked_at, Path(options.out), workers=options.workers)
    print(f"{_line(found.evaluation.to_dict())} on {len(found.cases)} {PLURAL[found.cases.unit]}")
    print(f"open {Path(options.out) / 'report.html'}")
    return 0


def _calibrate(options: Namespace) -> int:
    from mxa.calibrate import calibrate

    data = _data_options(_calibrate_parser(), options, options.data)
    tuning = calibrate(Path(options.model), data, options.rules, workers=options.workers)
    points, kinds = ", ".join(tuning.operating_points), ", ".join(tuning.calibrations)
    print(f"{options.model}: operating points {points}; calibrations {kinds}, from {tuning.fitted_on['images']} images")
    without = next(iter(tuning.operating_points.values())).reasons
    if without:
        print("no thresholds: " + ", ".join(f"{finding} ({reason})" for finding, reason in without.items()))
    return 0


def _predict(options: Namespace) -> int:
    from mxa.models.artifact import load
    from mxa.predict import find_files, predict_files, write_predictions

    classifier = load(options.model)
    files = find_files([Path(source) for source in options.sources])
    scored = predict_files(classifier, files)
    failed = write_predictions(
        tqdm(scored, total=len(files), unit="image", disable=None), classifier.labels, Path(options.out)
    )
    print(f"{options.out}: {len(files) - failed} of {len(files)} files scored")
    if failed:
        print(
            f"mxa predict: {failed} files could not be scored; the reasons are in the column 'error'", file=sys.stderr
        )
    return 1 if failed else 0


def _convert(options: Namespace) -> int:
    from mxa.models.artifact import load
    from mxa.models.xrv import convert

    folder = convert(options.weights, Path(options.out), options.cache_dir, trust=options.trust)
    print(f"{folder}: {options.weights} as a saved model of {', '.join(load(folder).labels)}")
    return 0


def _teacher_predict(options: Namespace) -> int:
    from mxa.training.teacher_cache import fill_cache

    config: TrainConfig = _from_namespace(TrainConfig, _teacher_predict_parser(), options)
    with tqdm(unit="image", disable=None) as bar:
        folder = fill_cache(config, progress=_advance(bar))
    print(f"{folder}: the teacher's logits of the training and validation images; train with --kd.cache {folder}")
    return 0


def _check(options: Namespace) -> int:
    from mxa.data.check import check_dataset
    from mxa.data.problems import Problem

    data = _data_options(_check_parser(), options, options.root)
    problems: list[Problem] = []
    table = read(data, problems=problems)
    with tqdm(unit="image", disable=None) as bar:
        problems += check_dataset(table, pixels=not options.no_pixels, progress=_advance(bar))
    for problem in problems:
        print(problem)
    print(f"{options.root}: {len(table)} images, {len(problems)} problems")
    print(table.counts().to_string())
    return 1 if problems else 0


def _pack(options: Namespace) -> int:
    from mxa.data.packing import make_pack, verify_pack

    if options.verify == (options.out is not None):
        raise ConfigError("give either --out, the new pack's folder, or --verify")
    if options.verify:
        with tqdm(unit="image", disable=None) as bar:
            wrong = verify_pack(Path(options.root), progress=_advance(bar))
        print("\n".join(wrong) if wrong else f"{options.root}: every block is what it was")
        return 1 if wrong else 0
    parser = _pack_parser()
    table = read(_data_options(parser, options, options.root))
    contract: Preprocess = parser.instantiate(options)["preprocess"]
    with tqdm(unit="image", disable=None) as bar:
        out = make_pack(
            table,
            Path(options.out),
            contract,
            reduced=not options.full_decode,
            allowed=options.max_rejects,
            workers=options.workers,
            progress=_advance(bar),
        )
    print(f"{out}: {len(table)} pictures of {options.root}, {contract.size} px; train with --pack {out}")
    return 0


def _phantom(options: Namespace) -> int:
    from mxa.data.phantom import make_phantom

    with tqdm(unit="image", disable=None) as bar:
        out = make_phantom(
            Path(options.out),
            images=options.images,
            size=options.size,
            seed=options.seed,
            workers=options.workers,
            progress=_advance(bar),
        )
    print(f"{out}: phantom radiographs in CheXpert's layout; `mxa data check {out} --dataset chexpert` looks them over")
    return 0


def _demo(options: Namespace) -> int:
    from mxa.demo import run_demo

    _quiet_lightning()
    report = run_demo(Path(options.out), images=options.images, epochs=options.epochs, seed=options.seed)
    print(f"open {report}")
    return 0


def _reproduce(options: Namespace) -> int:
    from mxa.reproduce.report import write_grid_report
    from mxa.reproduce.runs import run_grid

    _quiet_lightning()
    config: ReproduceConfig = _from_namespace(ReproduceConfig, _reproduce_parser(), options)
    with logging_redirect_tqdm():
        run_grid(config)
    print(f"open {write_grid_report(config)}")
    return 0


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "calibrate": _calibrate,
    "predict": _predict,
    "demo": _demo,
    "reproduce": _reproduce,
    "teacher convert": _convert,
    "teacher predict": _teacher_predict,
    "data phantom": _phantom,
    "data check": _check,
    "data pack": _pack,
}


# ------------------------------------------------------------------- helpers


def _is_first_process() -> bool:
    """Of those that train together; the others say nothing but errors. Launchers tell each its number like this."""
    told = [os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")]
    return all(number in {None, "0"} for number in told)


def _from_namespace(kind: type[Any], parser: ArgumentParser, options: Namespace, **given: Any) -> Any:
    """The dataclass whose fields the parser offers as options."""
    ready = parser.instantiate(options)
    return kind(
        **{field.name: ready[field.name] for field in fields(kind) if field.name in ready and field.name not in given},
        **given,
    )


def _data_options(parser: ArgumentParser, options: Namespace, root: str) -> DataOptions:
    data: DataOptions = _from_namespace(DataOptions, parser, options, root=root)
    return data


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def _quiet_lightning() -> None:
    """Its own remarks (hardware found, tips) would drown ours. It sets its loggers up on import: call this after."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _advance(bar: "tqdm[Any]") -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return advance


def _line(metrics: dict[str, Any]) -> str:
    shown = {
        "macro AUROC": "auroc_macro",
        "micro AUROC": "auroc_micro",
        "loss": "loss",
        "accuracy": "accuracy",
        "micro F1": "f1_micro",
    }
    return ", ".join(
        f"{name} {'undefined' if metrics[key] is None else format(metrics[key], '.4f')}" for name, key in shown.items()
    )


if __name__ == "__main__":
    sys.exit(main())
