"""How the pages become a site: `make docs`. The pages are the Markdown files where they lie, as GitHub shows them."""

import re
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer

from metering_pipeline.transform.dbt import write_docs

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import from_code  # noqa: E402  (beside this file, which Sphinx does not put on the path)

NAVIGATION = {
    "Begin": ["docs/tutorial", "docs/ui"],
    "Concepts": [
        "docs/events",
        "docs/fingerprint",
        "docs/late-data",
        "docs/one-formula",
        "docs/metrics",
        "docs/charges",
        "docs/periods",
    ],
    "How to": [
        "docs/reading",
        "docs/explain",
        "docs/quote",
        "docs/invoices",
        "docs/statement",
        "docs/control-totals",
        "docs/provider-usage",
    ],
    "Operate": [
        "docs/deploy",
        "docs/security",
        "docs/watch",
        "docs/retention",
        "docs/runbooks/*",
        "docs/seeded-faults",
        "docs/capacity",
        "benchmarks/README",
    ],
    "The stages": [
        "metering_pipeline/landing/README",
        "dbt_project/models/ledger/README",
        "dbt_project/models/rollups/README",
        "dbt_project/models/rating/README",
        "metering_pipeline/invoices/README",
        "metering_pipeline/reconciliation/README",
        "dbt_project/models/catalog/README",
        "dbt_project/models/staging/README",
    ],
    "Reference": [
        "docs/reference/settings",
        "docs/reference/commands",
        "docs/reference/tables",
        "docs/reference/tables-*",
        "tests/vectors/README",
    ],
    "Decisions": ["docs/decisions/README", "docs/decisions/*"],
}
"""Captions, and the pages below them in the order that a reader needs. A page that no pattern names fails the build."""

project = "Metering pipeline"
author = "Metering pipeline"
html_title = project
root_doc = "README"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
include_patterns = ["README.md", "docs/**.md", "benchmarks/README.md", "tests/vectors/README.md"]
include_patterns += ["metering_pipeline/*/README.md", "dbt_project/models/*/README.md"]
exclude_patterns = [".*", "build"]
myst_heading_anchors = 4
"""GitHub's anchors, so that the same link works there and here."""
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]


def setup(app: Any) -> None:
    app.add_lexer("csv", TextLexer)
    app.connect("source-read", _complete)
    app.connect("build-finished", _add_dbt_docs)


def _complete(app: Any, page: str, source: list[str]) -> None:
    """Write into a page what a Markdown file does not hold: the navigation, and what is made from the code."""
    source[0] = re.sub(r"<!-- from code: (\w+)(?: (\w+))? -->", _from_code, source[0])
    if page == root_doc:
        source[0] += _navigation(app.env.found_docs)


def _from_code(asked: re.Match[str]) -> str:
    function, argument = asked.groups()
    made: str = getattr(from_code, function)(*([argument] if argument else []))
    return made


def _navigation(found: set[str]) -> str:
    """A table of contents for each caption; each page stands where it is named first."""
    contents, placed = [], set()
    for caption, patterns in NAVIGATION.items():
        matching = [page for each in patterns for page in sorted(found) if fnmatch(page, each)]
        pages = [page for page in dict.fromkeys(matching) if page not in placed]
        placed.update(pages)
        options = f":hidden:\n:caption: {caption}\n:titlesonly:\n"
        contents.append("\n```{toctree}\n" + options + "\n" + "\n".join(pages) + "\n```\n")
    return "".join(contents)


def _add_dbt_docs(app: Any, exception: Exception | None) -> None:
    """dbt's own page beside the others: models, tests and macros with their SQL."""
    if exception is None:
        shutil.copyfile(write_docs(), Path(app.outdir) / "dbt.html")
