"""A statement as one HTML page: no script, nothing from elsewhere, readable aloud and on paper."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from metering_pipeline.invoices.statement import plot
from metering_pipeline.invoices.statement.page import Page, Usage
from metering_pipeline.invoices.statement.texts import TEXTS


def html(page: Page) -> bytes:
    """The page, UTF-8. Every text of it is escaped."""
    return _environment().get_template("statement.html").render(page=page, texts=TEXTS).encode()


def svg(usage: Usage) -> str:
    """The plot of a line's usage by day, as the page has it too."""
    return _environment().get_template("plot.svg").render(usage=usage)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.globals["frame"] = plot
    return environment
