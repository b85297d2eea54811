"""The model card: what a stranger must know before using a saved model, made from its ``config.json``."""

from collections.abc import Mapping
from typing import Any


def model_card(config: Mapping[str, Any]) -> str:
    """Markdown with the Hugging Face hub's front matter.

    Args:
        config: the contents of ``config.json``.
    """
    architecture, preprocess, training = config["architecture"]["name"], config["preprocess"], config["training"]
    lines = [
        "---",
        "library_name: mxa",
        "license: apache-2.0",
        "tags: [chest-x-ray, multi-label-classification, radiology]",
        "---",
        f"# {architecture} for {len(config['labels']['findings'])} findings on chest radiographs",
        "",
        *([f"{config['parameters']:,} parameters.", ""] if "parameters" in config else []),
        "**Research software; not for clinical use.** The probabilities are those of the data that the model "
        "was trained on; they are "
        "not calibrated for any other place.",
        "",
        "## Use",
        "```python",
        "import mxa",
        'prediction = mxa.load("THIS_FOLDER").predict("IMAGE")',
        "prediction.probabilities, prediction.regions",
        "```",
        "or `mxa predict THIS_FOLDER IMAGES --out predictions.csv`.",
        "",
        "## Input",
        f"One grey channel, {preprocess['size']} x {preprocess['size']} pixels, fit: {preprocess['fit']}, "
        f"{preprocess['interpolation']} interpolation, then (pixel / 255 - {preprocess['mean']}) / "
        f"{preprocess['std']}. "
        "`mxa` does this by itself. Bone is bright: an inverted picture gives wrong answers.",
        "",
        "## Findings",
        ", ".join(config["labels"]["findings"]) + ".",
        "",
    ]
    return "\n".join(lines + _provenance(training) + _tuning(config.get("tuning", {}))) + "\n"


def _tuning(tuning: Mapping[str, Any]) -> list[str]:
    """Which operating points and calibrations there are; their numbers are in ``config.json``."""
    if not tuning:
        return []
    data = tuning["fitted_on"]
    points, calibrations = (", ".join(tuning[key]) or "none" for key in ("operating_points", "calibrations"))
    return [
        "## Operating points and calibration",
        f"Chosen on {data.get('images', '?')} {data.get('split', '')} images of {data.get('dataset', '?')}. Operating "
        f"points: {points}. Calibrations: {calibrations}. A place with other patients needs its own: `mxa calibrate`.",
        "",
    ]


def _provenance(training: Mapping[str, Any]) -> list[str]:
    lines = []
    if "source" in training:
        source = training["source"]
        lines += [
            "## Source",
            f"The weights {source['weights']} of {source['library']}, converted from `{source['file']}` (SHA-256 "
            f"`{source['sha256']}`). Untrained outputs and operating points are left out; the logits are raw.",
            "",
        ]
    if "data" in training:
        data = training["data"]
        lines += [
            "## Training data",
            f"{data['dataset']}: "
            + ", ".join(f"{count} {split} images" for split, count in data["images"].items())
            + ".",
            f"Fingerprint of the label table: `{data['fingerprint'][:16]}`. Uncertain labels: "
            f"{data['policy']['uncertain']}; "
            f"blank labels: {data['policy']['blank']}.",
            "",
        ]
    if "distillation" in training:
        taught = training["distillation"]
        teachers = ", ".join(f"`{one['path']}` ({one['fingerprint'][:12]})" for one in taught["teachers"])
        lines += [
            "## Teacher",
            f"Distilled from {teachers}, which taught {len(taught['taught'])} findings"
            + (f"; not {', '.join(taught['not_taught'])}." if taught["not_taught"] else "."),
            "",
        ]
    if "validation" in training:
        selected = training["weights"]
        lines += [
            f"## Validation ({selected} weights selected on this split)",
            "| weights | loss | micro AUROC | macro AUROC |",
            "|---|---|---|---|",
        ]
        for name, result in training["validation"].items():
            cells = (
                "–" if result[key] is None else f"{result[key]:.4f}" for key in ("loss", "auroc_micro", "auroc_macro")
            )
            lines.append(f"| {name}{' (selected)' if name == selected else ''} | " + " | ".join(cells) + " |")
        lines += [
            "",
            "The figures were used to choose the epoch and the weights, so they are optimistic; score a test "
            "split for a fair one.",
            "",
        ]
    return lines
