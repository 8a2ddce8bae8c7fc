"""Statements say what was frozen, and nothing else: page, PDF, files."""

import re
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pypdf import PdfReader

from metering_pipeline.invoices.issuing import issue, issue_within, reverse
from metering_pipeline.invoices.statement.files import UnwritableError, write_statement
from metering_pipeline.invoices.statement.html import html
from metering_pipeline.invoices.statement.page import Page, compose
from metering_pipeline.invoices.statement.pdf import NoFontError, pdf
from metering_pipeline.invoices.statement.reading import UnknownDocumentError, numbers_of, read
from metering_pipeline.postgres import Database
from tests.postgres.archive import GREEK_AND_CYRILLIC, HOSTILE, JAPANESE
from tests.postgres.billing_world import JANUARY, World, after

KINDS = ["one line", "many lines", "credit note", "void", "write-off", "hostile", "yen", "dinar"]
VOID_ELEMENTS = {"meta", "line", "rect"}


@dataclass
class Parsed(HTMLParser):
    """A page taken apart: its tables as rows of cell texts, its tags, attributes and running text."""

    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str | None]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs).get("class") or "days", [])
        elif tag == "tr":
            self._rows.append([dict(attrs).get("class") or ""])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag == "span" and "table" in self._open:
            self._rows[-1][-1] += "\n"

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_ELEMENTS:
            assert self._open.pop() == tag, "elements are nested"

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data
        if "style" not in self._open:
            self.texts.append(data)

    def rows(self, table: str, kind: str = "") -> list[list[str]]:
        """The rows of a kind of table, without the kind and without their headings."""
        return [row[1:] for row in self.tables.get(table, []) if row[0] == kind and row[1] not in ("No.", "Item", "Line")]  # fmt: skip


def parsed(page: bytes) -> Parsed:
    parser = Parsed()
    parser.feed(page.decode())
    parser.close()
    return parser


def figure(text: str) -> Decimal:
    """A figure of the page, without the unit behind it."""
    return Decimal(text.split(" ")[0].replace(",", "").replace("\N{MINUS SIGN}", "-"))


def words(document: bytes) -> str:
    """The text of a PDF, its white space evened out."""
    return " ".join(
        " ".join(page.extract_text() for page in PdfReader(BytesIO(document)).pages).split()
    )


@dataclass
class Documents:
    """The archive's documents by what they are."""

    connection: psycopg.Connection
    numbers: dict[str, str]

    def page(self, name: str) -> Page:
        return compose(read(self.connection, self.numbers[name]))

    def rows(self, query: str, name: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode(), [self.numbers[name]]).fetchall()


@pytest.fixture
def documents(archive: tuple[Database, dict[str, str]]) -> Iterator[Documents]:
    database, numbers = archive
    with database.connect() as connection, connection.transaction(force_rollback=True):
        yield Documents(connection, numbers)


@pytest.mark.parametrize("name", KINDS)
def test_the_pages_figures_are_the_frozen_rows(documents: Documents, name: str) -> None:
    page = parsed(html(documents.page(name)))
    lines = documents.rows(
        """
        select line_number, description, quantity, amount, component
        from invoices.issued_invoice_lines where invoice_number = %s
        order by kind = 'adjustment', line_number
        """,
        name,
    )
    shown = page.rows("lines", "line")
    assert [(int(row[0]), figure(row[4])) for row in shown] == [
        (number, amount) for number, _, _, amount, _ in lines
    ]
    for row, (_, description, quantity, _, component) in zip(shown, lines, strict=True):
        assert row[1].startswith(description)
        assert row[2] == "" if component != "usage" else figure(row[2]) == quantity
    ((total, coupon, tax, credit, due, currency, digits),) = documents.rows(
        """
        select total, coupon_amount, tax_amount, credit_amount, amount_due, currency, minor_digits
        from invoices.issued_invoices
        where invoice_number = %s
        """,
        name,
    )
    sums = {label.split(" ")[0]: figure(amount) for label, amount in page.rows("sums")}
    assert sums == {"Sum": total, "Amount": due} | {
        label: amount
        for label, amount in (("Coupon", -coupon), ("Tax", tax), ("Prepaid", -credit))
        if amount
    }
    (due_shown,) = re.findall(r"<strong>(.*)</strong>", html(documents.page(name)).decode())
    assert due_shown.endswith(f" {currency}")
    assert len(due_shown.split(" ")[0].partition(".")[2]) == digits
    digests = documents.rows(
        """
        select line_number, event_count, event_digest, payload_digest
        from invoices.issued_invoice_lines where invoice_number = %s and component = 'usage'
        order by line_number
        """,
        name,
    )
    assert [tuple(map(figure, row)) for row in page.rows("digests")] == digests
    ((sha256, previous),) = documents.rows(
        "select content_sha256, previous_sha256 from invoices.issued_invoices where invoice_number = %s", name
    )  # fmt: skip
    assert sha256 in page.texts
    assert previous in page.texts or previous == "0" * 64


def test_tiers_and_days_are_the_frozen_rows(documents: Documents) -> None:
    page = parsed(html(documents.page("many lines")))
    tiers = documents.rows(
        """
        select tiers.quantity, tiers.amount
        from invoices.issued_tier_slices as tiers
        inner join (
            select line_number from invoices.issued_tier_slices
            where invoice_number = %s group by line_number having count(*) > 1
        ) as explained using (line_number)
        where invoice_number = 'EU-000002'
        order by line_number, tier
        """,
        "many lines",
    )
    assert [(figure(row[2]), figure(row[4])) for row in page.rows("lines", "detail")] == tiers
    days = documents.rows(
        """
        select days.value_sum, days.event_count, metric in ('tokens', 'volume')
        from invoices.issued_usage as days
        inner join invoices.issued_invoice_lines using (invoice_number, line_number)
        where invoice_number = %s order by line_number, day
        """,
        "many lines",
    )
    shown = [row[1:] for row in page.tables["days"] if row[1] != "Day"]
    assert [(figure(row[1]), figure(row[2])) for row in shown] == [
        (value if summed else events, events) for value, events, summed in days
    ]
    assert page.tags.count("svg") == 11


def test_an_adjustment_says_why(documents: Documents) -> None:
    group, lines = (
        documents.page("credit note").groups[0].title,
        documents.page("credit note").groups[0].lines,
    )
    assert group == "Adjustments of earlier periods"
    assert lines[0].period == "1 Jan to 31 Jan 2026"
    assert [(each.label, each.amount) for each in lines[0].details[3:]] == [
        ("This period now", "9.58"),
        (f"Billed on {documents.numbers['many lines']}", "\N{MINUS SIGN}11.63"),
    ]
    assert [each.notes for each in lines] == [
        [
            "The price was corrected (version 1 to 2). Tier 2 was priced at 0.018 by a slip of the pen.",
            "Usage of this period became known or was withdrawn after it had been billed: "
            "7,250 before, 7,210 now, 40 events fewer.",
            "By day (UTC): 12 Jan 396 before, 356 requests now.",
        ],
        ["It follows from the other adjustments of this period."],
        ["The subscription was changed: its plan or its dates."],
        ["Not billed before: it became known after the period had been invoiced."],
    ]


def test_other_documents_name_theirs(documents: Documents) -> None:
    first, many = documents.numbers["one line"], documents.numbers["many lines"]
    void, write_off = documents.numbers["void"], documents.numbers["write-off"]
    assert documents.page("void").about == [
        f"This document takes back {first} as a whole. Reason: The customer's address was another one."
    ]
    assert documents.page("write-off").about == [
        f"What {many} asks for is no longer claimed. Reason: Insolvency."
    ]
    assert documents.page("credit note").about == ["The amount is in your favor."]
    assert documents.page("yen").about == []
    assert documents.page("one line").about == [
        f"{void} has since taken back this document as a whole."
    ]
    assert documents.page("many lines").about == [
        f"{write_off} has since written off what this document asks for."
    ]
    assert documents.page("one line").about[0] in parsed(html(documents.page("one line"))).texts


@pytest.mark.parametrize("name", [name for name in KINDS if name != "yen"])
def test_the_pdf_says_the_same(documents: Documents, name: str) -> None:
    page = documents.page(name)
    text = words(pdf(page))
    said = [
        *page.about,
        page.number,
        page.heading,
        page.customer,
        page.seller,
        page.amount_due,
        page.sha256,
    ]
    for group in page.groups:
        said.append(group.title)
        for line in group.lines:
            said += [line.title, line.period, line.amount, *line.notes]
            said += [detail.label for detail in line.details]
    said += [value for each in page.sums for value in (each.label, each.amount)]
    said += [each.event_digest for each in page.digests]
    assert [each for each in said if " ".join(each.split()) not in text] == []


def test_long_documents_have_numbered_pages_with_headings(documents: Documents) -> None:
    first, *_, last = PdfReader(BytesIO(pdf(documents.page("many lines")))).pages
    assert "Page 1 of 3" in first.extract_text()
    assert "Page 3 of 3" in last.extract_text()


def test_the_pdf_is_for_archives_and_screen_readers(documents: Documents) -> None:
    reader = PdfReader(BytesIO(pdf(documents.page("many lines"))))
    assert reader.metadata is not None
    assert reader.metadata.title == "Invoice EU-000002"
    catalog: Any = reader.trailer["/Root"]
    assert catalog["/MarkInfo"]["/Marked"]
    assert catalog["/Lang"] == "en"
    description = catalog["/Metadata"].get_data().decode()
    assert {"pdfaid:part", "pdfuaid:part"} <= set(re.findall(r"pdf(?:a|ua)id:part", description))


def test_the_page_needs_nothing_and_can_be_read_aloud(documents: Documents) -> None:
    for name in KINDS:
        page = parsed(html(documents.page(name)))
        names = {attribute for attribute, _ in page.attributes}
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        assert not {"src", "href"} & names
        assert not [each for each in names if each.startswith("on")]
        assert [value for key, value in page.attributes if key == "lang"] == ["en"]
        assert page.tags.count("th") == sum(key == "scope" for key, _ in page.attributes)
        assert page.tags.count("svg") == sum(key == "aria-label" for key, _ in page.attributes)


def test_hostile_texts_are_texts(documents: Documents) -> None:
    page = documents.page("hostile")
    shown = parsed(html(page))
    assert shown.texts.count(HOSTILE) == 2
    assert "script" not in shown.tags
    assert words(pdf(page)).count(HOSTILE) == 2


def test_letters_of_other_scripts(documents: Documents) -> None:
    assert GREEK_AND_CYRILLIC in words(pdf(documents.page("one line")))
    assert JAPANESE in parsed(html(documents.page("yen"))).texts


def test_a_letter_without_a_font_is_said(documents: Documents, tmp_path: Path) -> None:
    """One for private use that no font has; as Japanese is where no font for it is installed."""
    name = "\U000f1234"
    with documents.connection.transaction(force_rollback=True):
        documents.connection.execute("set local session_replication_role = replica")
        documents.connection.execute(
            "update invoices.issued_invoices set tenant_name = %s where tenant_id = 'sakura'",
            [name],
        )
        paths = tmp_path / "a.html", tmp_path / "a.pdf"
        with pytest.raises(NoFontError, match=r"JP-000001 needs letters .*: \\u{f1234}. Install"):
            write_statement(documents.connection, documents.numbers["yen"], *paths)
    assert [path.exists() for path in paths] == [True, False]


def test_the_same_document_gives_the_same_bytes(documents: Documents) -> None:
    first = [
        (html(page), pdf(page)) for page in map(documents.page, KINDS) if page.currency != "JPY"
    ]
    time.sleep(1.1)  # what a PDF could keep of the clock has seconds
    again = [
        (html(page), pdf(page)) for page in map(documents.page, KINDS) if page.currency != "JPY"
    ]
    assert first == again


def test_a_statement_needs_no_catalog(documents: Documents) -> None:
    """Only the reason of a correction is read from there."""
    names = [name for name in KINDS if name != "credit note"]
    before = [html(documents.page(name)) for name in names]
    with documents.connection.transaction(force_rollback=True):
        documents.connection.execute(
            "truncate catalog.currencies, catalog.legal_entities, catalog.metrics, catalog.charges cascade"
        )
        assert documents.connection.execute("select from catalog.tenants").fetchall() == []
        assert [html(documents.page(name)) for name in names] == before


def test_files_are_whole_or_not_there(documents: Documents, tmp_path: Path) -> None:
    number, path = documents.numbers["one line"], tmp_path / "below" / "statement.html"
    assert write_statement(documents.connection, number, path, None) == [path]
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as a disk that is full
    try:
        with pytest.raises(UnwritableError, match="cannot be written: File too large"):
            write_statement(documents.connection, documents.numbers["many lines"], path, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [
        (path.name, whole)
    ]


def test_unknown_numbers_and_dates(documents: Documents) -> None:
    with pytest.raises(UnknownDocumentError, match="No document 'US-1' was issued"):
        read(documents.connection, "US-1")
    with pytest.raises(UnknownDocumentError, match="No document was issued for 2020-01-01"):
        numbers_of(documents.connection, date(2020, 1, 1))
    assert len(numbers_of(documents.connection, date(2026, 2, 5))) == len(documents.numbers)


def test_documents_that_were_really_issued(whole_world: World) -> None:
    report = issue(whole_world.database, JANUARY, after(JANUARY))
    assert len(report.issued) == 5
    for each in report.issued:
        page = compose(read(whole_world.connection, each.number))
        assert each.number in words(pdf(page))
        shown = parsed(html(page)).rows("lines", "line")
        assert sum(figure(row[4]) for row in shown) == each.total
    (acme,) = (each.number for each in report.issued if each.tenant_id == "acme")
    lines = compose(read(whole_world.connection, acme)).groups[0].lines
    assert [(each.title, each.quantity, each.period) for each in lines] == [
        ("basic-requests", "4 units", "1 Jan to 31 Jan 2026"),
        ("basic-tokens", "400 tokens", "1 Jan to 31 Jan 2026"),
    ]
    assert [each.label for each in lines[0].details] == ["Tier 1", "Tier 2"]


RENAMED = (
    "update catalog.tenants set name = 'Renamed'",
    "update catalog.legal_entities set name = 'Renamed'",
    "update catalog.plans set name = 'Renamed'",
    "update catalog.metrics set unit = 'renamed', aggregation = 'max'",
    "update catalog.subscriptions set time_zone = 'Asia/Kathmandu'",
    "update catalog.charges set charge_model = 'package', package_size = 7",
    "update catalog.currencies set minor_digits = 5",
)


def test_an_issued_document_says_for_ever_what_it_said(whole_world: World) -> None:
    """Its void, issued after all was renamed, has its names too."""
    report = issue(whole_world.database, JANUARY, after(JANUARY))
    names = {name: each.tenant_id for each in report.issued for name in [each.number]}
    connection = whole_world.connection

    def forms(number: str) -> tuple[bytes, bytes]:
        page = compose(read(connection, number))
        return html(page), pdf(page)

    before = {number: forms(number) for number in names}
    for change in RENAMED:
        whole_world.execute(change)
    assert {number: forms(number) for number in names} == before
    (acme,) = (number for number, tenant in names.items() if tenant == "acme")
    void = reverse(whole_world.database, acme, "void", "ana", "wrong address", after(JANUARY))
    said, taken_back = (compose(read(connection, number)) for number in (void.number, acme))
    assert (said.customer, said.seller) == ("acme", "Example, Inc.")
    assert [fact for fact in said.facts if fact[0] in ("Plan", "Time zone", "Service period")] == [
        ("Service period", "1 Jan to 31 Jan 2026"), ("Plan", "basic"), ("Time zone", "UTC"),
    ]  # fmt: skip
    assert [line.quantity for line in said.groups[0].lines] == ["4 units", "400 tokens"]
    assert said.amount_due == "\N{MINUS SIGN}19.82 USD"
    assert taken_back.about == [f"{void.number} has since taken back this document as a whole."]
    assert html(taken_back).count(void.number.encode()) == 1


def test_periods_are_shown_by_the_clock_rules_that_cut_them(world: World) -> None:
    """The server's: it has CET without summer time, Python with."""
    number = issue_within(world.connection, JANUARY, after(JANUARY)).issued[0].number
    world.tamper(
        "update invoices.issued_invoices set time_zone = 'CET' where invoice_number = %s", number
    )
    zone = read(world.connection, number).zone
    assert f"{datetime(2026, 7, 1, tzinfo=UTC).astimezone(zone):%H:%M %Z}" == "01:00 CET"
