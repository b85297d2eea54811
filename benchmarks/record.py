"""What a benchmark gives: JSON with everything, and Markdown tables to paste into RESULTS.md.

With ``--json FILE`` the JSON goes into that file and the Markdown to standard output; without it the JSON goes to
standard output and the Markdown to standard error.
"""

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timing import Spread, Timing

from mxa.training.provenance import environment


@dataclass(frozen=True)
class Table:
    """Sides that were timed in turn.

    Attributes:
        title: what was timed.
        timings: of each side.
        images: images per call, to give images/s; 0 gives seconds per call.
        against: by the column's name, the side that each side is compared with; a side that is not in it is not
            compared.
        overhead: show comparisons as what a side takes longer (+21%) instead of how much faster it is (3.5).
        columns: further numbers of the sides, by the columns' names.
    """

    title: str
    timings: Mapping[str, Timing]
    images: int = 0
    against: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    overhead: bool = False
    columns: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, by side."""
        return {side: self._side(side, timing) for side, timing in self.timings.items()}

    def _side(self, side: str, timing: Timing) -> dict[str, Any]:
        found: dict[str, Any] = {"calls": timing.calls, "seconds": asdict(timing.spread)}
        found["seconds"]["rounds"] = timing.seconds
        if timing.cpu_seconds:
            found["cpu_seconds"] = asdict(Spread.of(timing.cpu_seconds))
        if self.images:
            found["images_per_s"] = asdict(timing.per_second(self.images))
        references = {column: sides[side] for column, sides in self.against.items() if side in sides}
        found["time_over"] = {
            column: {"side": other, **asdict(timing.over(self.timings[other]))} for column, other in references.items()
        }
        return found | {column: values[side] for column, values in self.columns.items() if side in values}

    def to_markdown(self) -> str:
        """A row per side: median, quartiles, range; comparisons are made within each round: median and quartiles."""
        unit = "images/s" if self.images else "seconds"
        compared = [f"{'time' if self.overhead else 'speed'} over {column}" for column in self.against]
        rows = [["side", unit, "quartiles", "range", *compared, *self.columns]]
        rows.append(["---"] * len(rows[0]))
        rows += [self._row(side, timing) for side, timing in self.timings.items()]
        return "\n".join([f"{self.title}:", "", *("| " + " | ".join(row) + " |" for row in rows)])

    def _row(self, side: str, timing: Timing) -> list[str]:
        spread = timing.per_second(self.images) if self.images else timing.spread
        median, low, high, least, most = map(number, (spread.median, *spread.quartiles, spread.min, spread.max))
        compared = [
            self._comparison(timing, references[side]) if side in references else ""
            for references in self.against.values()
        ]
        further = [number(values[side]) if side in values else "" for values in self.columns.values()]
        return [side, median, f"{low} to {high}", f"{least} to {most}", *compared, *further]

    def _comparison(self, timing: Timing, reference: str) -> str:
        if timing is self.timings[reference]:
            return "0%" if self.overhead else "1"
        if self.overhead:
            longer = timing.over(self.timings[reference])
            median, low, high = (f"{value - 1:+.0%}" for value in (longer.median, *longer.quartiles))
        else:
            faster = self.timings[reference].over(timing)
            median, low, high = map(number, (faster.median, *faster.quartiles))
        return f"{median} ({low} to {high})"


def number(value: float) -> str:
    """Three digits, or all those before the decimal point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def against_one(reference: str, sides: Sequence[str]) -> dict[str, dict[str, str]]:
    """Compare all sides with one of them."""
    return {reference: dict.fromkeys(sides, reference)}


def make_parser(description: str | None, *, rounds: int = 7, seconds: float | None = 0.2) -> argparse.ArgumentParser:
    """The options that benchmarks share.

    Args:
        description: the script's docstring.
        rounds: default of ``--rounds``.
        seconds: default of ``--seconds``; None leaves the option out, where a call takes long anyway.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=positive, default=rounds, help="how often each side is timed")
    if seconds is not None:
        parser.add_argument(
            "--seconds", type=float, default=seconds, help="what is shorter is repeated until about this long"
        )
    parser.add_argument("--json", type=Path, help="write the JSON here, and only the tables to standard output")
    return parser


def positive(text: str) -> int:
    """A whole number of 1 or more, for argparse."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def publish(
    name: str, parser: argparse.ArgumentParser, options: argparse.Namespace, *tables: Table, **more: Any
) -> None:
    """Write what was measured.

    Args:
        name: the script's name, without ``.py``.
        parser: of the options; what differs from its defaults is the command.
        options: as parsed.
        tables: the timings.
        more: anything else, as plain JSON values.
    """
    settings = {key: value for key, value in vars(options).items() if key != "json"}
    result = {
        "benchmark": name,
        "command": _command(name, parser, settings),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "settings": settings,
        "tables": {table.title: table.to_dict() for table in tables},
        **more,
    }
    text = json.dumps(_rounded(result), indent=1, allow_nan=False)
    if options.json is None:
        print(text)
    else:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")
    print(_markdown(result, tables), file=sys.stderr if options.json is None else sys.stdout)


def machine() -> dict[str, Any]:
    """Processor, device, threads, versions, source revision."""
    known = {key: value for key, value in environment().items() if key != "command"}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"processor": _processor(), "device": device, "threads": torch.get_num_threads(), **known}


def _processor() -> str:
    """The processor's name, as Linux gives it; elsewhere what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _command(name: str, parser: argparse.ArgumentParser, settings: Mapping[str, Any]) -> str:
    words = [f"python benchmarks/{name}.py"]
    for key, value in settings.items():
        if value == parser.get_default(key):
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{key}", *map(str, values)]
    return " ".join(words)


def _markdown(result: Mapping[str, Any], tables: Sequence[Table]) -> str:
    own = result["machine"]
    versions = f"Python {own['python']}, torch {own['packages']['torch']}, timm {own['packages']['timm']}"
    where = (
        f"{own['device']}; {own['processor']}, {own['processors']} processors, {own['threads']} threads; {versions}."
    )
    head = f"## {result['benchmark']} ({result['date']})\n\n    {result['command']}\n\n{where}"
    return "\n\n".join([head, *(table.to_markdown() for table in tables)])


def _rounded(value: Any) -> Any:
    """Six digits are more than a timing has."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
