"""What ``metering statement`` does and prints."""

from datetime import date
from pathlib import Path
from urllib.parse import quote

from rich.console import Console
from rich.markup import escape

from metering_pipeline import settings
from metering_pipeline.invoices.statement.files import write_statement
from metering_pipeline.invoices.statement.pdf import NoFontError
from metering_pipeline.invoices.statement.reading import numbers_of
from metering_pipeline.postgres import open_database


def write_one(console: Console, number: str, html_path: Path | None, pdf_path: Path | None) -> None:
    """Write a document's statement: what is named, or both forms below the home."""
    configured = settings.load()
    if html_path is None and pdf_path is None:
        html_path, pdf_path = _paths(configured, number)
    with open_database(configured, reading=True).connect() as connection:
        for path in write_statement(connection, number, html_path, pdf_path):
            console.print(escape(str(path)), highlight=False, soft_wrap=True)


def write_all(console: Console, billing_date: date) -> None:
    """Write the statements of all documents issued for a date; a PDF without font does not hold the
    others. Raises NoFontError at the end, with all that lack one."""
    configured = settings.load()
    lacking = []
    with open_database(configured, reading=True).connect() as connection:
        numbers = numbers_of(connection, billing_date)
        for number in numbers:
            try:
                write_statement(connection, number, *_paths(configured, number))
            except NoFontError as error:
                lacking.append(str(error))
    folder = escape(str(_folder(configured)))
    console.print(f"{len(numbers):,} statements in {folder}", highlight=False, soft_wrap=True)
    if lacking:
        raise NoFontError("\n".join(lacking))


def _folder(configured: settings.Settings) -> Path:
    return configured.home / "statements"


def _paths(configured: settings.Settings, number: str) -> tuple[Path, Path]:
    """Page and PDF, named so that no number leads out of the folder or to another's file."""
    name = _folder(configured) / quote(number, safe="")
    return Path(f"{name}.html"), Path(f"{name}.pdf")
