"""The command line: parses, calls one function, prints. Exit codes: 0 good, 1 the job failed, 2 wrong usage."""

import logging
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from mxa.cli import data, evaluation, training, use
from mxa.cli.shared import is_first_process
from mxa.errors import ConfigError, MxaError
from mxa.version import __version__

DESCRIPTION = """Small, fast multi-label classifiers for chest radiographs (EfficientViT with the MXA block).

No data at hand?   mxa demo
Your own data:     mxa data check ROOT --dataset chexpert
                   mxa train --config configs/mxa.yaml --data.root ROOT --out runs/first
                   mxa evaluate runs/first/model --data ROOT --split valid --out runs/first/valid
Use a model:       mxa predict runs/first/model IMAGES --out predictions.csv
                   mxa explain runs/first/model IMAGE --out page.png
                   mxa export runs/first/model --format onnx --images IMAGES --out model.onnx
                   mxa serve model.onnx
Anybody's CSV:     mxa evaluate --predictions P.csv --labels L.csv --out DIR
The paper's grid:  mxa reproduce --config configs/reproduce.yaml --base.data.root ROOT
With a teacher:    mxa teacher convert densenet121-res224-chex --out teachers/densenet121-res224-chex
                   mxa train --config configs/mxa_kd.yaml --data.root ROOT --out runs/distilled

`mxa COMMAND --help` explains each option. Research software; not for clinical use."""

COMMANDS = training.COMMANDS | evaluation.COMMANDS | use.COMMANDS | data.COMMANDS
TRAINING = {"torch", "torchvision", "timm", "lightning", "safetensors"}
"""What predicting with an exported model does without."""
GROUPS = {
    "teacher": ("convert teachers, and store what they say of a data set", "Get teachers ready for distillation."),
    "data": ("make and check data sets", "Make and check data sets."),
}
"""Commands of two words: the first word's line in the overview, and its own description."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("mxa").setLevel(logging.INFO if is_first_process() else logging.ERROR)
    command, options = _chosen(_parser().parse_args(argv))
    try:
        return COMMANDS[command].run(options)
    except ConfigError as error:
        print(f"mxa {command}: {error}", file=sys.stderr)
        return 2
    except MxaError as error:
        print(f"mxa {command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in TRAINING:
            raise
        print(f"mxa {command}: needs {error.name}; `pip install 'mxa[train]'` brings it", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"mxa {command}: stopped", file=sys.stderr)
        return 1


class _AsWritten(DefaultHelpFormatter):
    """Keeps the description's lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))


def _parser() -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        allow_abbrev=False, prog="mxa", description=DESCRIPTION, version=__version__, formatter_class=_AsWritten
    )
    commands = parser.add_subcommands(dest="command")
    inner = {}
    for name, command in COMMANDS.items():
        group, _, own = name.rpartition(" ")
        if group and group not in inner:
            overview, description = GROUPS[group]
            grouped = ArgumentParser(allow_abbrev=False, description=description)
            commands.add_subcommand(group, grouped, help=overview)
            inner[group] = grouped.add_subcommands(dest="subcommand")
        (inner[group] if group else commands).add_subcommand(own, command.parser(), help=command.help)
    return parser


def _chosen(args: Namespace) -> tuple[str, Namespace]:
    """The command's full name and its own options."""
    command, options = args.command, args[args.command]
    if command in GROUPS:
        return f"{command} {options.subcommand}", options[options.subcommand]
    return command, options
