"""Commands that score models, and choose their thresholds."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from mxa.cli.shared import Command, add_data_options, data_options, figures, from_namespace, optional_path
from mxa.data.options import DataOptions
from mxa.evaluation.assessment import AssessOptions
from mxa.evaluation.casefiles import PLURAL
from mxa.evaluation.tuning import RULES


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
        "--split",
        type=str | None,
        default=None,
        choices=[None, "train", "valid", "test"],
        help="which part of it is scored; valid unless told otherwise",
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
    parser.add_argument(
        "--localisation",
        type=str | None,
        default=None,
        help="marks of findings in the data set's images, against which a saved model's boxes and maps are scored: a "
        "phantom's folder, NIH's BBox_List_2017.csv or CheXlocalize's gt_segmentations_*.json",
    )
    parser.add_argument("--workers", type=int, default=0, help="loading processes")
    parser.add_class_arguments(AssessOptions)
    add_data_options(parser, {"labels"})
    return parser


def _evaluate(options: Namespace) -> int:
    from mxa.evaluate import Sources, evaluate

    parser = _evaluate_parser()
    # Here --labels is a file; a data set has its own findings unless a model or --findings brings others.
    own = "nih14" if options.dataset == "nih" else "chexpert14"
    data: DataOptions = from_namespace(DataOptions, parser, options, root=options.data, labels=own)
    sources = Sources(
        model=optional_path(options.model),
        predictions=optional_path(options.predictions),
        labels=optional_path(options.labels),
        data=data,
        split=options.split,
        valid_predictions=optional_path(options.valid_predictions),
        valid_labels=optional_path(options.valid_labels),
        against=optional_path(options.against),
        readers=[Path(file) for file in options.readers],
        aggregate=options.aggregate,
        findings=options.findings,
        localisation=optional_path(options.localisation),
    )
    looked_at: AssessOptions = from_namespace(AssessOptions, parser, options)
    found = evaluate(sources, looked_at, Path(options.out), workers=options.workers)
    print(f"{figures(found.evaluation.to_dict())} on {len(found.cases)} {PLURAL[found.cases.unit]}")
    print(f"open {Path(options.out) / 'report.html'}")
    return 0


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
    parser.add_argument(
        "--use_operating_point", type=str, default="", help="predictions decide at this one unless told otherwise"
    )
    parser.add_argument(
        "--use_calibration",
        type=str,
        default="",
        help="predictions are calibrated with this one unless told otherwise: temperature, platt or isotonic",
    )
    parser.add_argument("--workers", type=int, default=0, help="loading processes")
    add_data_options(parser, {"labels"})
    return parser


def _calibrate(options: Namespace) -> int:
    from mxa.calibrate import calibrate

    data = data_options(_calibrate_parser(), options, options.data)
    tuning = calibrate(
        Path(options.model),
        data,
        options.rules,
        workers=options.workers,
        use_operating_point=options.use_operating_point,
        use_calibration=options.use_calibration,
    )
    points, kinds = ", ".join(tuning.operating_points), ", ".join(tuning.calibrations)
    print(f"{options.model}: operating points {points}; calibrations {kinds}, from {tuning.fitted_on['images']} images")
    if tuning.operating_point or tuning.calibration:
        used = [one for one in (tuning.operating_point, tuning.calibration) if one]
        print(f"predictions use {' and '.join(used)} unless told otherwise")
    without = next(iter(tuning.operating_points.values())).reasons
    if without:
        print("no thresholds: " + ", ".join(f"{finding} ({reason})" for finding, reason in without.items()))
    return 0


COMMANDS = {
    "evaluate": Command("score a saved model or a CSV of predictions", _evaluate_parser, _evaluate),
    "calibrate": Command(
        "choose a model's thresholds and calibration on your validation data", _calibrate_parser, _calibrate
    ),
}
