"""Statements as files, each written whole or not at all."""

import os
import tempfile
from pathlib import Path

import psycopg

from metering_pipeline.errors import MeteringError
from metering_pipeline.invoices.statement.html import html
from metering_pipeline.invoices.statement.page import compose
from metering_pipeline.invoices.statement.pdf import pdf
from metering_pipeline.invoices.statement.reading import read


class UnwritableError(MeteringError):
    """A statement's file cannot be written where it was asked for."""


def write_statement(
    connection: psycopg.Connection, number: str, html_path: Path | None, pdf_path: Path | None
) -> list[Path]:
    """Write an issued document's statement; None leaves a form out. The files written, HTML first.

    The same document gives the same bytes. Raises UnknownDocumentError, NoFontError (the page is
    written all the same), UnwritableError.
    """
    page = compose(read(connection, number))
    written = []
    for path, form in ((html_path, html), (pdf_path, pdf)):
        if path is not None:
            _write(path, form(page))
            written.append(path)
    return written


def _write(path: Path, content: bytes) -> None:
    """Write beside the path and move it there: who reads it meanwhile has the old file, or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            beside = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                beside.chmod(0o644)
                beside.replace(path)
            except BaseException:
                beside.unlink()
                raise
    except OSError as error:
        raise UnwritableError(f"{path} cannot be written: {error.strerror}") from error
