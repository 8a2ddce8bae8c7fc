"""A statement as a PDF, set by Typst: for archives (PDF/A-2a) and for screen readers (PDF/UA-1)."""

import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files

import typst

from metering_pipeline.errors import MeteringError
from metering_pipeline.invoices.statement.html import svg
from metering_pipeline.invoices.statement.page import Page
from metering_pipeline.invoices.statement.texts import TEXTS

NO_GLYPH = "could not be displayed with"


class NoFontError(MeteringError):
    """No font at hand has the letters of a statement."""


def pdf(page: Page) -> bytes:
    """The PDF. The fonts that Typst brings set it, and those of the machine only what these lack:
    so the bytes are the same everywhere, except for rare letters. Raises NoFontError.
    """
    content = asdict(page) | {
        "usage": [
            {"title": each.title, "summary": each.summary, "svg": svg(each)} for each in page.usage
        ]
    }
    inputs = {"page": json.dumps(content), "texts": json.dumps(TEXTS)}
    for with_system_fonts in (False, True):
        try:
            return _typeset(inputs, with_system_fonts)
        except typst.TypstError as error:
            if NO_GLYPH not in error.message:
                raise
            missing = error
    raise NoFontError(
        f"The PDF of {page.number} needs letters that no font of this machine has: "
        f"{_letters(missing)}. Install one that has them (on Debian, for Chinese, Japanese and "
        "Korean: fonts-noto-cjk) and run it again. The HTML page needs none."
    )


def _typeset(inputs: dict[str, str], with_system_fonts: bool) -> bytes:
    template = files(__package__).joinpath("templates", "statement.typ").read_bytes()
    compiler = typst.Compiler(template, font_paths=_fonts(with_system_fonts), sys_inputs=inputs)
    document = compiler.compile(format="pdf", pdf_standards=["a-2a", "ua-1"])
    if not isinstance(document, bytes):
        raise TypeError("Typst gives a PDF as bytes")
    return document


@cache
def _fonts(with_system_fonts: bool) -> typst.Fonts:
    return typst.Fonts(include_system_fonts=with_system_fonts)


def _letters(error: typst.TypstError) -> str:
    """The letters that Typst says it cannot show, each once."""
    quoted = [part.split('"`')[0] for part in error.diagnostic.split('the text `"')[1:]]
    return " ".join(dict.fromkeys(quoted))
