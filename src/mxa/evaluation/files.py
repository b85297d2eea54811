"""Results as files that appear whole or not at all: a reader never finds half a page or half a table."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mxa.errors import DataError
from mxa.evaluation.tables import Table, to_csv, to_latex, to_markdown

if TYPE_CHECKING:  # whoever writes numbers alone needs no Matplotlib
    from mxa.evaluation.figures import Chart


def write_text(file: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8.

    Raises:
        DataError: it cannot be written, such as into a missing folder.
    """
    _write(file, text.encode("utf-8"))


def _write(file: str | os.PathLike[str], content: bytes) -> None:
    """Beside its place, then moved there."""
    target = Path(file)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}; check its folder") from error
    finally:
        with contextlib.suppress(OSError):  # gone already unless something failed
            part.unlink()


def write_json(file: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write plain JSON types; a NaN is an error, not a word that no other reader knows.

    Raises:
        DataError: it cannot be written.
        ValueError: a number is not finite.
    """
    write_text(file, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_charts(folder: str | os.PathLike[str], charts: "Mapping[str, Chart]") -> None:
    """Write each chart as ``NAME.png``.

    Args:
        folder: of the results.
        charts: by file name.

    Raises:
        DataError: a file cannot be written.
    """
    for name, chart in charts.items():
        _write(Path(folder) / f"{name}.png", chart.png)


def write_tables(folder: str | os.PathLike[str], tables: Mapping[str, Table]) -> None:
    """Write each table as ``tables/NAME.csv``, and all of them into ``tables.md`` and ``tables.tex``.

    Args:
        folder: of the results.
        tables: by file name.

    Raises:
        DataError: a file cannot be written.
    """
    folder = Path(folder)
    try:
        (folder / "tables").mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {folder / 'tables'}: {error.strerror}; check its folder") from error
    for name, table in tables.items():
        write_text(folder / "tables" / f"{name}.csv", to_csv(table))
    write_text(folder / "tables.md", "\n\n".join(to_markdown(table).rstrip() for table in tables.values()) + "\n")
    write_text(folder / "tables.tex", "\n\n".join(to_latex(table).rstrip() for table in tables.values()) + "\n")
