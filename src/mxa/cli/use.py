"""Commands that use a model: predict, explain, export, serve."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mxa.archive.run import ArchiveOptions, predict_archive
from mxa.archive.sources import Sources
from mxa.archive.tree import Tally
from mxa.cli.shared import Command, add_data_options, data_options, from_namespace
from mxa.data.options import read
from mxa.errors import ConfigError
from mxa.quiet import quiet
from mxa.serve.options import ServeOptions

MODEL = "saved model's folder, exported file, or hub id (owner/name)"


def _predict_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Write a row per picture: probabilities, decisions, boxes, or why there are none; exit 1 if any "
        "has none. Memory does not grow with the number of pictures, and an interrupted or killed run goes on with "
        "--resume.",
    )
    parser.add_argument("model", type=str, help=MODEL)
    parser.add_argument(
        "sources",
        type=str,
        nargs="*",
        help="files, folders (searched in depth), patterns in quotes ('scans/**/*.dcm') and DICOMDIR files",
    )
    parser.add_argument("--out", type=str, required=True, help="new .csv, .jsonl or .parquet (a folder of parts)")
    parser.add_argument("--list", type=str, default="", help="text file with one path per line; - for standard input")
    _add_runtime_options(parser)
    _add_dicom_options(parser)
    parser.add_argument("--logits", action="store_true", help="write the network's own outputs, too")
    parser.add_argument("--resume", action="store_true", help="go on with an output; begin it where there is none")
    parser.add_class_arguments(ArchiveOptions, skip={"views", "force", "logits", "resume"})
    return parser


def _predict(options: Namespace) -> int:
    from mxa.predictor import open_predictor

    asked: ArchiveOptions = from_namespace(
        ArchiveOptions, _predict_parser(), options, views=tuple(options.views) or None
    )
    sources = Sources(tuple(options.sources), options.list)
    predictor = open_predictor(options.model, options.runtime, options.device, threads=_threads(options))
    with tqdm(unit="image", disable=None) as bar, logging_redirect_tqdm(), quiet():
        summary = predict_archive(predictor, sources, Path(options.out), asked, progress=bar.update)
    print("\n".join(summary.lines()), file=sys.stderr)
    return 0 if summary.good else 1


def _explain_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Draw radiographs at full resolution with their MXA boxes, and class-activation maps of the most "
        "probable findings beside them.",
    )
    parser.add_argument("model", type=str, help="folder of the saved model")
    parser.add_argument("sources", type=str, nargs="+", help="files, folders (searched in depth) and quoted patterns")
    parser.add_argument("--out", type=str, required=True, help=".png, .pdf or .svg")
    parser.add_argument("--findings", type=list[str], default=[], help="these findings instead of the most probable")
    parser.add_argument("--count", type=int, default=3, help="how many of the most probable findings")
    parser.add_argument(
        "--operating_point", type=str | None, default=None, help="its thresholds are named; default youden"
    )
    _add_dicom_options(parser)
    return parser


def _explain(options: Namespace) -> int:
    from mxa.explain.figure import write_explanations

    out = Path(options.out)
    with quiet():
        shown = write_explanations(
            Path(options.model),
            _files(options.sources),
            out,
            findings=options.findings,
            count=options.count,
            operating_point=options.operating_point,
            views=options.views,
            force=options.force,
        )
    print(f"{out}: {len(shown)} radiographs")
    return 0


def _export_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Write a saved model for another runtime, and show on your radiographs that it gives the same: a "
        "logit that differs by more than 1e-4 fails it, and no file is left. With --int8 the network computes in 8 "
        "bits; what that costs and gains is measured on labelled images.",
    )
    parser.add_argument("model", type=str, help="folder of the saved model")
    parser.add_argument("--out", type=str, required=True, help="new file; the report goes beside it as OUT.json")
    parser.add_argument(
        "--format", type=str, default="onnx", help="onnx (.onnx), openvino (.xml) or torch-export (.pt2)"
    )
    parser.add_argument(
        "--images", type=str, nargs="*", default=[], help="radiographs to compare on: files, folders, patterns"
    )
    parser.add_argument("--int8", action="store_true", help="8-bit network for ONNX Runtime")
    parser.add_argument(
        "--calibration",
        type=str,
        nargs="*",
        default=[],
        help="with --int8: unlabelled radiographs that show the ranges",
    )
    parser.add_argument("--data", type=str, default="", help="with --int8: folder of the labelled data set")
    parser.add_argument("--split", type=str, default="valid", help="with --int8: of that data set")
    add_data_options(parser, {"labels"})
    return parser


def _export(options: Namespace) -> int:
    from mxa.deploy.export import export_model

    if options.int8:
        return _quantise(options)
    if options.data or options.calibration:
        raise ConfigError("--data and --calibration belong to --int8; give it, or leave them out")
    if not options.images:
        raise ConfigError("--images is missing: radiographs to compare the exported network on")
    report = export_model(options.model, options.out, options.format, _files(options.images))
    parity = report.parity
    print(
        f"{report.file}: {report.runtime} differs from the saved model by at most {parity.max_logit_difference:.2g} in "
        f"logits and {parity.max_box_difference:.2g} in boxes, and in {parity.decisions_differing} decisions, on "
        f"{parity.pictures} radiographs"
    )
    return 0


def _quantise(options: Namespace) -> int:
    from mxa.deploy.quantise import quantise_model
    from mxa.models.artifact import load

    if options.format != "onnx" or options.images:
        raise ConfigError("--int8 is of --format onnx, and measures on --data instead of comparing on --images")
    if not options.data or not options.calibration:
        raise ConfigError("--int8 needs --calibration, unlabelled radiographs, and --data, a labelled data set")
    data = data_options(_export_parser(), options, options.data)
    table = read(data, labels=load(options.model).labels).split(options.split)
    report = quantise_model(options.model, options.out, _files(options.calibration), table)
    macro = report.auroc_macro
    speeds = ", ".join(
        f"batch {batch} {pair.int8 / pair.float32:.2f} times as fast" for batch, pair in report.images_per_s.items()
    )
    print(
        f"{report.file}: macro AUROC {macro.int8:.4f} instead of {macro.float32:.4f} ({macro.change:+.4f}) on "
        f"{len(table)} images; {speeds}"
    )
    return 0


def _serve_parser() -> ArgumentParser:
    parser = ArgumentParser(
        allow_abbrev=False,
        description="Serve a model on this machine: a page to drop radiographs on, and an interface (/openapi.json). "
        "Nothing is stored, nothing leaves the machine.",
    )
    parser.add_argument("model", type=str, help=MODEL)
    _add_runtime_options(parser)
    parser.add_class_arguments(ServeOptions)
    return parser


def _serve(options: Namespace) -> int:
    try:
        from mxa.serve.server import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; `pip install 'mxa[serve]'` brings it") from error
    chosen: ServeOptions = from_namespace(ServeOptions, _serve_parser(), options)
    serve(options.model, chosen, runtime=options.runtime, device=options.device, threads=_threads(options))
    return 0


def _add_runtime_options(parser: ArgumentParser) -> None:
    parser.add_argument("--runtime", type=str, default="auto", help="torch, onnxruntime, openvino, or auto")
    parser.add_argument("--device", type=str, default="cpu", help="of the runtime: cpu, cuda, ...")
    parser.add_argument("--threads", type=int | None, default=None, help="of the runtime on the CPU; default its own")


def _threads(options: Namespace) -> int | None:
    if options.threads is not None and options.threads < 1:
        raise ConfigError(f"threads is {options.threads}; give at least 1")
    return options.threads


def _add_dicom_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--views",
        type=str,
        nargs="*",
        default=[],
        help="of DICOM files, those that are accepted: frontal, lateral, oblique, decubitus; default those that the "
        "model was trained on",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="accept DICOM files that are no chest radiograph of these views; the notes say why they would be refused",
    )


def _files(sources: Sequence[str]) -> list[Path]:
    """All files of the sources, in a stable order."""
    found = Sources(tuple(sources))
    found.check()
    return [Path(one.path) for one in found.find(Tally())]


COMMANDS = {
    "predict": Command(
        "a row per picture of files, folders and archives: probabilities, decisions, boxes", _predict_parser, _predict
    ),
    "explain": Command("radiographs with their MXA boxes and class-activation maps", _explain_parser, _explain),
    "export": Command("a model for ONNX Runtime, OpenVINO or torch.export, and its parity", _export_parser, _export),
    "serve": Command("a page and an interface for a model, on this machine", _serve_parser, _serve),
}
