"""Usage from CSV files: what any provider, or a spreadsheet, can be made to write."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from metering_pipeline.reconciliation.providers.usage import (
    Names,
    ProviderError,
    ProviderUsage,
    Span,
    parse_value,
    refuse,
    within,
)
from metering_pipeline.settings import parse_instant

COLUMNS = ("metric", "period_start", "period_end", "value")
WHO = ("tenant_id", "customer")

T = TypeVar("T")


class CsvFiles:
    """A CSV file, or the *.csv of a folder, with the columns tenant_id or customer, and COLUMNS."""

    tells_all = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = f"csv:{path}"

    def usage(self, span: Span | None, names: Names) -> Iterator[ProviderUsage]:
        """Every row of the span. Raises ProviderError that names each bad one by file, line and column."""
        problems: list[str] = []
        rows = [row for path in self._files() for row in _rows(path, problems)]
        refuse(problems, "cannot be read")
        return (row for row in rows if within(span, row))

    def _files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        files = sorted(self.path.glob("*.csv"))
        if not files:
            raise ProviderError(f"{self.path} is neither a file nor a folder with *.csv files.")
        return files


def _rows(path: Path, problems: list[str]) -> Iterator[ProviderUsage]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = _columns(path, next(reader, []))
            for cells in reader:
                if not cells:
                    continue
                place = f"{path.name} line {reader.line_num}"
                if len(cells) != len(columns):
                    problems.append(f"{place}: {len(cells)} fields, not {len(columns)}")
                    continue
                row = _row(place, dict(zip(columns, cells, strict=True)), problems)
                if row is not None:
                    yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProviderError(f"{path} cannot be read as CSV in UTF-8: {error}") from error


def _columns(path: Path, header: list[str]) -> list[str]:
    missing = [each for each in COLUMNS if each not in header]
    if not set(WHO) & set(header):
        missing.insert(0, " or ".join(WHO))
    if missing or len(set(header)) != len(header):
        raise ProviderError(
            f"{path} line 1: "
            + (f"lacks {', '.join(missing)}. " if missing else "names a column twice. ")
            + f"The columns are tenant_id or customer, {', '.join(COLUMNS)}; others are ignored."
        )
    return header


def _row(place: str, cells: dict[str, str], problems: list[str]) -> ProviderUsage | None:
    """The row, or None and what is wrong with it, each with its column."""
    known = len(problems)
    who = next(each for each in WHO if each in cells)

    def read(column: str, parse: Callable[[str], T]) -> T | None:
        try:
            return parse(cells[column].strip())
        except ValueError as error:
            problems.append(f"{place} column {column}: {cells[column]!r}: {error}")
            return None

    customer, meter = read(who, _name), read("metric", _name)
    start, end = read("period_start", parse_instant), read("period_end", parse_instant)
    value = read("value", parse_value)
    if start and end and start >= end:
        problems.append(f"{place} column period_end: the period must end after it starts")
    if len(problems) > known or not (customer and meter and start and end) or value is None:
        return None
    return ProviderUsage(customer, meter, start, end, value, place)


def _name(text: str) -> str:
    if not 1 <= len(text.encode()) <= 255:
        raise ValueError("must have 1 to 255 bytes")
    return text
