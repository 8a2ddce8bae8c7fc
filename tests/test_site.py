"""The pages as a site: built as strictly as `make docs` builds it, whole, and saying what the code says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

from metering_pipeline.cli import cli
from metering_pipeline.settings import PREFIX, PROJECT_ROOT, Settings
from tests.test_docs import PAGES
from tests.test_house import RELATIONS


class Page(HTMLParser):
    """What a built page links to, and the places in it that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            if name == "id" and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "-c", "docs"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "-d", folder / "doctrees", ".", folder / "html"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "METERING_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return folder / "html"


def test_every_page_is_part_of_it(site: Path) -> None:
    pages = [path.relative_to(PROJECT_ROOT).with_suffix(".html") for path in PAGES]
    assert [page for page in pages if not (site / page).exists()] == []


def test_every_link_leads_somewhere(site: Path) -> None:
    """Also those that no Markdown has: the navigation, pictures, dbt's own page."""
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "dbt.html"}
    lost = [
        f"{path.relative_to(site)}: {link}"
        for path, page in pages.items()
        for link in page.links
        if not leads_somewhere(path, link, pages)
    ]
    assert lost == []
    tables = pages[site / "docs" / "reference" / "tables.html"]
    assert "../../dbt.html" in tables.links
    assert "dbt Docs" in (site / "dbt.html").read_text()


def leads_somewhere(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or not (parts.path or parts.fragment):
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    anchors = pages[target].anchors if target in pages else set()
    return target.exists() and (not parts.fragment or unquote(parts.fragment) in anchors)


def test_the_reference_is_the_code(site: Path) -> None:
    reference = {path.stem: path.read_text() for path in (site / "docs" / "reference").iterdir()}
    assert "from code:" not in "".join(reference.values())
    lacking = [
        name
        for name in Settings.__dataclass_fields__
        if (PREFIX + name.upper()) not in reference["settings"]
    ]
    lacking += [
        name for name in commands(cli, "metering") if f"<h2>{name}<" not in reference["commands"]
    ]
    tables = "".join(text for page, text in reference.items() if page.startswith("tables-"))
    lacking += [name for name in RELATIONS if f"<h2>{name}<" not in tables]
    lacking += [
        f"{name}.{column['name']}"
        for name, relation in RELATIONS.items()
        for column in relation["columns"]
        if f">{column['name']}<" not in tables
    ]
    assert lacking == []


def commands(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from commands(each, f"{name} {each.name}")
    else:
        yield name
