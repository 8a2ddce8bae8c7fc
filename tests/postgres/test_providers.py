"""A billing provider's usage beside ours: what differs is found, and named by its cause."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from click.testing import CliRunner

from metering_pipeline.cli import cli
from metering_pipeline.embedded_server import EmbeddedServer
from metering_pipeline.invoices import issuing
from metering_pipeline.postgres import Database
from metering_pipeline.reconciliation.providers import stripe_meters
from metering_pipeline.reconciliation.providers.comparing import ADVICE, Comparison, compare
from metering_pipeline.reconciliation.providers.fetching import Fetch, fetch, provider, usual_span
from metering_pipeline.reconciliation.providers.usage import ProviderError, Span
from metering_pipeline.settings import SettingError, Settings, load
from metering_pipeline.status import provider_line
from metering_pipeline.transform.dbt import run_dbt
from tests.postgres.billing_world import JANUARY, World, after, at, use
from tests.postgres.conftest import _make
from tests.postgres.stripe_server import KEY, Account, serving

MONTH = Span(at("2026-01-01"), at("2026-02-01"))
NOW = at("2026-02-05T00:30")

TOKENS = {
    # what counts, hour by hour: by hand from the events of billing_world and those below
    "acme": {"2026-01-12T10": "300", "2026-01-12T11": "100", "2026-01-20T10": "14.5", "2026-01-20T11": "33"},
    "birch": {"2026-01-12T09": "100", "2026-01-12T10": "7.5", "2026-01-12T11": "200", "2026-01-13T23": "100",
              "2026-01-20T10": "13", "2026-01-20T11": "23", "2026-01-31T23": "34"},
    "cobalt": {"2026-01-12T10": "100", "2026-01-12T11": "100", "2026-01-20T10": "17"},
}  # fmt: skip
REQUESTS = {
    "acme": {"2026-01-12T10": "3", "2026-01-12T11": "1", "2026-01-20T10": "2", "2026-01-20T11": "2"},
    "birch": {"2026-01-12T09": "1", "2026-01-12T10": "1", "2026-01-12T11": "2", "2026-01-13T23": "1",
              "2026-01-20T10": "1", "2026-01-20T11": "1", "2026-01-31T23": "2"},
    "cobalt": {"2026-01-12T10": "1", "2026-01-12T11": "1", "2026-01-20T10": "1"},
}  # fmt: skip


REJECTED = (
    b'{"tenant_id": "birch", "event_type": "api.request", "occurred_at": "2026-01-20T11:05:00Z",'
    b' "correlation_id": "b-0", "quantity": "NaN"}'
)


def tokens(
    tenant: str, occurred_at: str, name: str, count: str, **more: object
) -> dict[str, object]:
    properties = f'{{"model":"small","tokens":"{count}"}}'
    return use(tenant, occurred_at, 0, properties=properties, **more) | {"correlation_id": name}


@pytest.fixture(scope="module")
def world(server: EmbeddedServer, world_template: str) -> Iterator[World]:
    """January with a retry, a late event and a void whose values tell them apart; made once for this module."""
    address = server.start()
    _make(address.url("postgres"), "metering", world_template)
    database = Database(url=address.url("metering"), dagster_url=address.url("dagster"))
    with database.connect(autocommit=True) as connection:
        world = World(database, connection)
        world.land("2026-01-20T10:00", "d.ndjson", [
            tokens("acme", "2026-01-20T10:01", "r-1", "11"),
            tokens("acme", "2026-01-20T10:01", "r-1", "11"),
            tokens("acme", "2026-01-20T10:02", "r-2", "3.5"),
            tokens("birch", "2026-01-20T10:05", "b-1", "13"),
            tokens("cobalt", "2026-01-20T10:05", "c-1", "17"),
            tokens("cobalt", "2026-01-20T10:05", "c-1", "17"),
            tokens("cobalt", "2026-01-20T10:06", "c-2", "19"),
        ])  # fmt: skip
        bad = world.land("2026-01-20T11:00", "e.ndjson", [
            tokens("acme", "2026-01-20T11:30", "r-3", "31"),
            tokens("acme", "2026-01-20T11:40", "r-4", "2"),
            tokens("acme", "2026-01-20T11:40", "r-4", "43"),
            tokens("birch", "2026-01-20T11:10", "b-2", "23"),
            tokens("cobalt", "2026-01-20T10:06", "c-2", "19", void=True),
        ])  # fmt: skip
        world.execute(
            "insert into landing.rejected_events values (%s, %s, 6, 'quantity_not_a_number', 'NaN', %s)",
            at("2026-01-20T11:00"), bad, REJECTED,
        )  # fmt: skip
        world.execute("update landing.files set rejected_count = 1 where file_id = %s", bad)
        world.land(
            "2026-01-31T23:00", "f.ndjson", [tokens("birch", "2026-01-31T23:10", "b-3", "5")]
        )
        world.land(
            "2026-02-02T05:00", "g.ndjson", [tokens("birch", "2026-01-31T23:30", "b-4", "29")]
        )
        world.run("2026-01-20", "2026-02-03")
        run_dbt(database, "run", [
            "usage_realtime", "usage_in_ledger", "unique_values_in_ledger", "unique_values_between",
            "usage_between", "path:models/reconciliation",
        ])  # fmt: skip
        yield world


def hours(values: dict[str, str]) -> dict[int, Decimal]:
    return {int(at(f"{hour}:00").timestamp()): Decimal(value) for hour, value in values.items()}


def epoch(hour: str) -> int:
    return int(at(f"{hour}:00").timestamp())


@pytest.fixture
def account() -> Iterator[Account]:
    """A Stripe account that agrees with us."""
    known = Account(
        customers=[f"cus_{tenant}" for tenant in TOKENS],
        meters=["mtr_requests", "mtr_tokens"],
        values={
            (f"cus_{tenant}", meter): hours(values)
            for meter, usage in (("mtr_requests", REQUESTS), ("mtr_tokens", TOKENS))
            for tenant, values in usage.items()
        },
    )
    with serving(known) as address:
        yield address


@pytest.fixture
def mapped(world: World) -> Iterator[World]:
    """The world with names for Stripe's customers and meters."""
    for tenant in TOKENS:
        world.execute(
            "insert into catalog.provider_customers values (%s, %s)", f"cus_{tenant}", tenant
        )
    world.execute(
        "insert into catalog.provider_meters values ('mtr_requests', 'requests'), ('mtr_tokens', 'tokens')"
    )
    yield world
    world.execute("delete from catalog.provider_customers")
    world.execute("delete from catalog.provider_meters")


def asked(account: Account, **more: object) -> Settings:
    return replace(Settings(stripe_api_key=KEY, stripe_api_base=account.address), **more)  # type: ignore[arg-type]


def fetched(
    world: World, settings: Settings, source: str, span: Span | None = MONTH, now: datetime = NOW
) -> Fetch:
    return fetch(world.database, provider(settings, world.database, source), span, "test", now)


def compared(world: World, source: str) -> Comparison:
    with world.database.connect() as connection:
        return compare(connection, source)


def causes(comparison: Comparison) -> dict[tuple[str, str], dict[str, Decimal]]:
    """The amounts by cause, of each tenant and metric that differs."""
    return {
        (each.who, each.what): {cause.cause: cause.amount for cause in found}
        for each, found in comparison.causes.items()
    }


# Stripe


def test_an_account_that_agrees_is_identical(mapped: World, account: Account) -> None:
    fetched(mapped, asked(account), "stripe")
    comparison = compared(mapped, "stripe")
    assert {each.state for each in comparison.periods} == {"identical"}
    assert {(each.who, each.what): each.theirs for each in comparison.periods} == {
        (tenant, metric): sum(map(Decimal, values.values()))
        for metric, usage in (("requests", REQUESTS), ("tokens", TOKENS))
        for tenant, values in usage.items()
    }


def test_seeded_differences_are_found_and_named(mapped: World, account: Account) -> None:
    acme, birch, cobalt = (account.values[f"cus_{each}", "mtr_tokens"] for each in TOKENS)
    acme[epoch("2026-01-20T10")] += 11  # the retry of r-1, counted again
    acme[epoch("2026-01-20T11")] -= 1  # simply wrong
    del birch[epoch("2026-01-20T11")]  # an hour that was never sent
    birch[epoch("2026-01-31T23")] -= 29  # b-4, which landed after they had closed
    cobalt[epoch("2026-01-20T10")] += 19  # c-2, which was voided
    account.customers.append("cus_ghost")
    account.values["cus_ghost", "mtr_tokens"] = {epoch("2026-01-05T05"): Decimal(7)}
    fetched(mapped, asked(account), "stripe")
    comparison = compared(mapped, "stripe")
    assert causes(comparison) == {
        ("acme", "tokens"): {"duplicate": 11, "quantity": -1},
        ("birch", "tokens"): {"missed_hours": -23, "late": -29},
        ("cobalt", "tokens"): {"voided": 19},
        ("(customer cus_ghost)", "tokens"): {"unknown_customer": 7},
    }
    assert {each.who: each.state for each in comparison.beyond} == {
        "acme": "modified", "birch": "modified", "cobalt": "modified", "(customer cus_ghost)": "extra",
    }  # fmt: skip
    for each, found in comparison.causes.items():
        assert sum(cause.amount for cause in found) == each.difference
    said = {cause.cause: cause.detail for found in comparison.causes.values() for cause in found}
    assert "r-1" in said["duplicate"]
    assert "c-2" in said["voided"]
    assert "2026-01-20T11" in said["missed_hours"]
    assert said["late"] == "1 events landed from 2026-02-02T05 on"
    assert said["quantity"].startswith(
        "theirs 32, ours 33, from 2026-01-20T11:00 to 2026-01-20T12:00"
    )
    assert len(comparison.advice()) == 6


def test_days_name_days(mapped: World, account: Account) -> None:
    del account.values["cus_birch", "mtr_tokens"][epoch("2026-01-13T23")]
    fetched(mapped, asked(account, stripe_grouping="day"), "stripe")
    comparison = compared(mapped, "stripe")
    assert causes(comparison) == {("birch", "tokens"): {"missed_hours": -100}}
    ((cause,),) = comparison.causes.values()
    assert cause.detail == "1 hours with usage: 2026-01-13T23"


def test_many_pages_and_every_digit(mapped: World, account: Account) -> None:
    """250 hours are three pages; the values have more digits than a float holds."""
    start = epoch("2025-06-01T00")
    odd = Decimal("12345678.123456789012345678")
    account.values["cus_acme", "mtr_tokens"] = {start + 3600 * hour: odd for hour in range(250)}
    span = Span(at("2025-06-01"), at("2025-07-01"))
    fetched(mapped, asked(account), "stripe", span)
    pages = [
        each for each in account.requests if "mtr_tokens/event_summaries?customer=cus_acme&" in each
    ]
    assert len(pages) == 3
    (period,) = [each for each in compared(mapped, "stripe").beyond if each.period_end <= span.end]
    assert (period.theirs, period.state) == (odd * 250, "extra")
    # another fetch of the same months is their newest word
    account.values["cus_acme", "mtr_tokens"] = {}
    fetched(mapped, asked(account), "stripe", span)
    assert [
        each for each in compared(mapped, "stripe").periods if each.period_end <= span.end
    ] == []


def test_troubles_are_asked_through(
    mapped: World, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_meters, "FIRST_WAIT_SECONDS", 0.001)
    kept = fetched(mapped, asked(account), "stripe").values
    undisturbed = len(account.requests)
    account.requests.clear()
    account.troubles += [429, 429, "none", 500, "cut", "none", 503, "cut", 429, "none", "cut"]
    assert fetched(mapped, asked(account), "stripe").values == kept
    assert len(account.requests) == undisturbed + 8
    assert {each.state for each in compared(mapped, "stripe").periods} == {"identical"}


@pytest.mark.parametrize("trouble", [429, 500, "cut"])
def test_lasting_trouble_keeps_nothing(
    mapped: World, account: Account, monkeypatch: pytest.MonkeyPatch, trouble: int | str
) -> None:
    monkeypatch.setattr(stripe_meters, "FIRST_WAIT_SECONDS", 0.001)
    before = mapped.row("select count(*) from reconciliation.provider_fetches")
    account.troubles += ["none"] * 4 + [trouble] * 6
    with pytest.raises(ProviderError, match=r"6 attempts.*nothing was kept") as error:
        fetched(mapped, asked(account), "stripe")
    assert KEY not in str(error.value)
    assert mapped.row("select count(*) from reconciliation.provider_fetches") == before


def test_a_bad_key_is_named_and_not_shown(
    mapped: World, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    bad = asked(account, stripe_api_key="sk_live_ThisOneIsWrong9876543210")
    with caplog.at_level(logging.DEBUG), pytest.raises(ProviderError) as error:
        fetched(mapped, bad, "stripe")
    assert "METERING_STRIPE_API_KEY (status 401)" in str(error.value)
    assert error.value.__context__ is None  # what Stripe says quotes the key's end
    for text in (str(error.value), caplog.text, repr(bad)):
        assert "ThisOneIs" not in text
        assert "3210" not in text
    with pytest.raises(ProviderError, match="METERING_STRIPE_API_KEY is not set"):
        fetched(mapped, Settings(), "stripe")


@pytest.mark.parametrize(
    "address", ["http://example.com", "ftp://127.0.0.1", "127.0.0.1:9", "http://10.0.0.1"]
)
def test_the_key_goes_to_no_unencrypted_place(mapped: World, address: str) -> None:
    settings = Settings(stripe_api_key=KEY, stripe_api_base=address)
    with pytest.raises(ProviderError, match="METERING_STRIPE_API_BASE"):
        fetched(mapped, settings, "stripe")


def test_stripe_is_asked_for_whole_hours_and_known_meters(mapped: World, account: Account) -> None:
    with pytest.raises(ProviderError, match="edge inside one"):
        fetched(mapped, asked(account), "stripe", Span(at("2026-01-01T00:30"), at("2026-02-01")))
    account.meters.remove("mtr_tokens")
    with pytest.raises(ProviderError, match="no meter mtr_tokens"):
        fetched(mapped, asked(account), "stripe")


def test_what_is_not_ours_on_purpose_is_not_asked_for(mapped: World, account: Account) -> None:
    account.customers.append("cus_test")
    account.meters.append("mtr_seats")
    account.values["cus_test", "mtr_tokens"] = {epoch("2026-01-05T05"): Decimal(7)}
    account.values["cus_acme", "mtr_seats"] = {epoch("2026-01-05T05"): Decimal(3)}
    fetched(mapped, asked(account), "stripe")
    assert causes(compared(mapped, "stripe")) == {
        ("(customer cus_test)", "tokens"): {"unknown_customer": 7},
        ("acme", "(meter mtr_seats)"): {"unmetered": 3},
    }
    mapped.execute("insert into catalog.provider_customers values ('cus_test', null)")
    mapped.execute("insert into catalog.provider_meters values ('mtr_seats', null)")
    fetched(mapped, asked(account), "stripe")
    assert causes(compared(mapped, "stripe")) == {}


def test_the_usual_span_is_two_months_up_to_midnight() -> None:
    assert usual_span("stripe", at("2026-03-05T14:20")) == Span(at("2026-02-01"), at("2026-03-05"))
    assert usual_span("csv:x", at("2026-03-05T14:20")) is None


# CSV


def write(path: Path, *rows: str, who: str = "tenant_id") -> str:
    path.write_text("\n".join([f"{who},metric,period_start,period_end,value", *rows]) + "\n")
    return f"csv:{path}"


def january(tenant: str, metric: str, value: str) -> str:
    return f"{tenant},{metric},2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,{value}"


def test_months_by_csv(world: World, tmp_path: Path) -> None:
    source = write(
        tmp_path / "usage.csv",
        january("acme", "tokens", "447.5"),
        january("cobalt", "tokens", "217.0217"),
        january("delta", "tokens", "0"),
        january("acme", "seats", "3"),
        january("ghost", "tokens", "1.000000000000000001"),
    )
    fetched(world, Settings(), source, None)
    comparison = compared(world, source)
    states = {(each.who, each.what): each.state for each in comparison.periods}
    assert states == {
        ("acme", "tokens"): "identical",
        ("birch", "tokens"): "missing",
        ("cobalt", "tokens"): "within threshold",
        ("delta", "tokens"): "identical",
        ("acme", "(meter seats)"): "extra",
        ("(customer ghost)", "tokens"): "extra",
    }
    assert causes(comparison) == {
        ("birch", "tokens"): {"no_customer": Decimal("-477.5")},
        ("cobalt", "tokens"): {"quantity": Decimal("0.0217")},
        ("acme", "(meter seats)"): {"unmetered": 3},
        ("(customer ghost)", "tokens"): {"unknown_customer": Decimal("1.000000000000000001")},
    }
    assert comparison.periods[-1].state == "identical"  # differences first


@pytest.mark.parametrize(
    ("value", "state"),
    [
        # 0.01 % of the larger side: theirs 447.544754475447544754475…, or ours 0.04475
        ("447.544754475447544754", "within threshold"),
        ("447.544754475447544755", "modified"),
        ("447.455250000000000000", "within threshold"),
        ("447.455249999999999999", "modified"),
    ],
)
def test_the_threshold_is_of_the_larger_side_and_exact(
    world: World, tmp_path: Path, value: str, state: str
) -> None:
    source = write(tmp_path / "usage.csv", january("acme", "tokens", value))
    fetched(world, Settings(), source)
    (acme,) = [each for each in compared(world, source).periods if each.who == "acme"]
    assert acme.state == state


def test_periods_may_begin_inside_an_hour(world: World, tmp_path: Path) -> None:
    """Midnight in India is half past an hour in UTC: exact, by the ledger."""
    source = write(
        tmp_path / "usage.csv",
        "acme,tokens,2026-01-01T00:00:00+05:30,2026-01-20T15:31:30+05:30,411",  # up to 10:01:30Z
        "acme,tokens,2026-01-20T15:31:30+05:30,2026-02-01T00:00:00+05:30,36.5",
        "birch,tokens,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,477.5",
        "cobalt,tokens,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,217",
    )
    fetched(world, Settings(), source, None)
    comparison = compared(world, source)
    assert [(each.who, each.state) for each in comparison.periods] == [
        ("acme", "identical"), ("acme", "identical"), ("birch", "identical"), ("cobalt", "identical"),
    ]  # fmt: skip


def test_a_gap_at_the_edge_counts_where_the_span_was_asked_for(
    world: World, tmp_path: Path
) -> None:
    """Birch's row begins half an hour after acme's: that its zone may do, unless the span says otherwise."""
    source = write(
        tmp_path / "usage.csv",
        "acme,tokens,2026-01-12T09:30:00Z,2026-01-20T12:00:00Z,447.5",
        "birch,tokens,2026-01-12T10:00:00Z,2026-01-20T12:00:00Z,343.5",
    )
    fetched(world, Settings(), source, None)
    lacking = {("cobalt", "tokens"): {"no_customer": -217}}
    assert causes(compared(world, source)) == lacking
    fetched(world, Settings(), source, Span(at("2026-01-12T09:30"), at("2026-01-20T12:00")))
    assert causes(compared(world, source)) == lacking | {
        ("birch", "tokens"): {"missed_hours": -100}
    }


def test_a_period_that_had_not_ended_is_partial(world: World, tmp_path: Path) -> None:
    source = write(tmp_path / "usage.csv", january("acme", "tokens", "400.25"))
    fetched(world, Settings(), source, MONTH, at("2026-01-15"))
    assert causes(compared(world, source))["acme", "tokens"] == {
        "partial_period": Decimal("-47.25")
    }


@pytest.mark.parametrize(
    ("tenant", "metric", "hour", "value", "found"),
    [
        ("acme", "tokens", 11, "76", {"conflict": 43}),  # r-4 both ways
        ("acme", "tokens", 11, "74", {"conflict": 41}),  # the other r-4 in place of ours
        ("cobalt", "tokens", 10, "53", {"voided": 19, "duplicate": 17}),
        ("birch", "requests", 11, "2", {"rejected": 1}),
        ("birch", "requests", 11, "3", {"quantity": 2}),
        ("birch", "tokens", 11, "0", {"missed_hours": -23}),
    ],
)
def test_causes_of_one_hour(
    world: World, tmp_path: Path, tenant: str, metric: str, hour: int, value: str,
    found: dict[str, int],
) -> None:  # fmt: skip
    span = Span(at(f"2026-01-20T{hour}:00"), at(f"2026-01-20T{hour + 1}:00"))
    row = f"{tenant},{metric},{span.start.isoformat()},{span.end.isoformat()},{value}"
    source = write(tmp_path / "usage.csv", row)
    fetched(world, Settings(), source, span)
    assert causes(compared(world, source))[tenant, metric] == found


def test_bad_rows_are_named_and_nothing_is_kept(world: World, tmp_path: Path) -> None:
    source = write(
        tmp_path / "usage.csv",
        january("acme", "tokens", "1e3"),
        january("birch", "tokens", "0.1234567890123456789"),
        "cobalt,tokens,2026-01-01,2026-02-01T00:00:00Z,1",
        "cobalt,tokens,2026-02-01T00:00:00Z,2026-01-01T00:00:00Z,1",
        ",tokens,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,1",
        "short",
    )
    with pytest.raises(ProviderError) as error:
        fetched(world, Settings(), source, None)
    for named in (
        "6 rows cannot be read; nothing was kept",
        "usage.csv line 2 column value: '1e3': write a plain decimal number",
        "usage.csv line 3 column value",
        "usage.csv line 4 column period_start: '2026-01-01': write an instant with its offset",
        "usage.csv line 5 column period_end: the period must end after it starts",
        "usage.csv line 6 column tenant_id: ''",
        "usage.csv line 7: 1 fields, not 5",
    ):
        assert named in str(error.value)
    assert world.row(
        "select count(*) from reconciliation.provider_fetches where source = %s", source
    ) == (0,)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([january("acme", "tokens", "1"), january("acme", "tokens", "2")], "line 3: acme tokens .* overlaps usage.csv line 2"),
        ([], "has no usage"),
        (["acme,tokens,2025-12-15T00:00:00Z,2026-01-15T00:00:00Z,1"], "reaches beyond 2026-01-01 to 2026-02-01"),
        ([january("acme", "people", "1")], "people is a unique_count"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(
    world: World, tmp_path: Path, rows: list[str], message: str
) -> None:
    world.execute(
        """
        insert into catalog.metrics values
        ('people', 'api.request', 'unique_count', 'user', null, false, '{}', 'people', '{}', 'people')
        on conflict do nothing
        """
    )
    try:
        with pytest.raises(ProviderError, match=message):
            fetched(world, Settings(), write(tmp_path / "usage.csv", *rows))
    finally:
        world.execute("delete from catalog.metrics where metric = 'people'")


def test_files_that_are_none_are_refused(world: World, tmp_path: Path) -> None:
    for path, message in (
        ("none", "neither a file nor a folder"),
        ("x.csv", "line 1: lacks tenant_id or customer"),
    ):
        (tmp_path / "x.csv").write_text("metric,period_start,period_end,value\n")
        with pytest.raises(ProviderError, match=message):
            fetched(world, Settings(), f"csv:{tmp_path / path}")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProviderError, match="cannot be read as CSV in UTF-8"):
        fetched(world, Settings(), f"csv:{tmp_path}")
    with pytest.raises(ProviderError, match="is no source of usage"):
        fetched(world, Settings(), "ftp:x")


# A table of the company's own


def test_a_view_of_the_company_s_own(mapped: World) -> None:
    mapped.execute('create schema if not exists "Finance\'"')
    mapped.execute("""
        create or replace view "Finance'"."month; usage" as
        select
            'cus_' || tenant_id as customer,
            metric,
            '2026-01-01 00:00+00'::timestamptz as period_start,
            '2026-02-01 00:00+00'::timestamptz as period_end,
            sum(value_sum)::numeric as value
        from rollups.usage_hourly
        where metric = 'tokens'
        group by tenant_id, metric
    """)
    source = "table:Finance'.month; usage"
    fetched(mapped, Settings(), source)
    assert {each.who: each.state for each in compared(mapped, source).periods} == dict.fromkeys(
        TOKENS, "identical"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("usage", "name it with its schema"),
        ("nowhere.usage", "no such table or view"),
        (
            "rollups.usage_hourly",
            "period_start is not there; period_end is not there; value is not there",
        ),
        ("pg_temp.x; drop table", "no such table"),
        ("staging.floats", "value is double precision, not numeric"),
        ("staging.holes", "value is empty"),
        ("staging.endless", "cannot be read: timestamp too large"),
    ],
)
def test_tables_that_will_not_do_are_refused(world: World, name: str, message: str) -> None:
    world.execute("""
        create or replace view staging.floats as
        select 'acme' as tenant_id, 'tokens' as metric, now() as period_start, now() as period_end, 0.5::float8 as value
    """)
    world.execute("""
        create or replace view staging.holes as
        select 'acme' as tenant_id, 'tokens' as metric, now() as period_start, now() as period_end, null::numeric as value
    """)
    world.execute("""
        create or replace view staging.endless as
        select 'acme' as tenant_id, 'tokens' as metric, now() as period_start, 'infinity'::timestamptz as period_end,
            1 as value
    """)
    with pytest.raises(ProviderError, match=message):
        fetched(world, Settings(), f"table:{name}")


# What is kept, and what it holds


def test_what_was_fetched_stays(world: World, tmp_path: Path) -> None:
    source = write(tmp_path / "usage.csv", january("acme", "tokens", "1"))
    fetched(world, Settings(), source)
    for change in (
        "update reconciliation.provider_usage set value = 2",
        "delete from reconciliation.provider_fetches",
        "truncate reconciliation.provider_fetches cascade",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            world.execute(change)
    (kept,) = world.rows(
        "select source, fetched_by, fetched_at from reconciliation.provider_fetches where source = %s",
        source,
    )
    assert kept == (source, "test", NOW.astimezone(UTC))


def draw_up(world: World) -> None:
    """The drafts, anew."""
    run_dbt(
        world.database,
        "run",
        ["billing_periods", "period_usage_daily", "rated_lines", "draft_invoices"],
    )


def definitions() -> dg.Definitions:
    from metering_pipeline.definitions import defs

    return defs


def held(world: World) -> dict[str, str]:
    report = issuing.preview(world.database, JANUARY, after(JANUARY))
    return {
        each.tenant_id: each.detail for each in report.held if each.reason == "provider_differs"
    }


def test_the_gate_holds_whom_it_concerns(world: World, tmp_path: Path) -> None:
    draw_up(world)
    rows = [
        january(tenant, metric, str(sum(map(Decimal, values.values()))))
        for metric, usage in (("requests", REQUESTS), ("tokens", TOKENS))
        for tenant, values in usage.items()
    ]
    source = write(tmp_path / "usage.csv", *rows)
    for name, value in (("provider_usage", source), ("provider_gate", "hold")):
        world.execute("update catalog.settings set value = %s where name = %s", value, name)
    try:
        assert held(world).keys() == set(TOKENS)  # never compared
        assert "tokens was not compared" in held(world)["acme"]
        fetched(world, Settings(), source, now=at("2026-01-20"))
        assert held(world).keys() == set(TOKENS)  # before the period's end
        fetched(world, Settings(), source)
        assert held(world) == {}
        write(tmp_path / "usage.csv", *(each.replace(",447.5", ",448") for each in rows))
        fetched(world, Settings(), source, now=NOW + timedelta(minutes=1))
        assert held(world) == {
            "acme": "tokens from 2026-01-01T00:00 to 2026-02-01T00:00: theirs 448, ours 447.5"
        }
        world.execute("update catalog.settings set value = 'warn' where name = 'provider_gate'")
        assert held(world) == {}
    finally:
        world.execute("update catalog.settings set value = '' where name = 'provider_usage'")
        world.execute("update catalog.settings set value = 'warn' where name = 'provider_gate'")


@pytest.fixture
def configured(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A provider by the environment that has acme's tokens wrong; its source."""
    rows = [
        january(tenant, "tokens", str(sum(map(Decimal, values.values()))))
        for tenant, values in TOKENS.items()
    ]
    source = write(tmp_path / "usage.csv", *(each.replace(",447.5", ",448") for each in rows))
    monkeypatch.setenv("METERING_DATABASE_URL", world.database.url)
    monkeypatch.setenv("METERING_DAGSTER_DATABASE_URL", world.database.dagster_url)
    monkeypatch.setenv("METERING_CLOCK", NOW.isoformat())
    monkeypatch.setenv("METERING_PROVIDER_USAGE", source)
    yield source
    world.execute("update catalog.settings set value = '' where name = 'provider_usage'")
    world.execute("update catalog.settings set value = 'warn' where name = 'provider_gate'")


@pytest.mark.parametrize("gate", ["warn", "hold"])
def test_the_asset_shows_what_differs_and_blocks_where_it_holds(
    world: World, configured: str, monkeypatch: pytest.MonkeyPatch, gate: str
) -> None:
    monkeypatch.setenv("METERING_PROVIDER_GATE", gate)
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions().resolve_job_def("provider")
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert result.success == (gate == "warn")
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.severity.value == {"warn": "WARN", "hold": "ERROR"}[gate]
    (record,) = check.metadata["where"].records  # type: ignore[union-attr]
    assert record.data | {"causes": ""} == {
        "tenant": "acme", "metric": "tokens", "period": "2026-01-01 to 2026-02-01",
        "theirs": "448", "ours": "447.5", "state": "modified", "causes": "",
    }  # fmt: skip
    assert "compare the events" in str(check.metadata["what to do"].value)


def test_without_a_provider_nothing_is_said(
    world: World, configured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "1 differ: acme" in provider_line_after(world, "reconcile")
    monkeypatch.delenv("METERING_PROVIDER_USAGE")
    assert provider_line_after(world, "db", "start") == "None"
    assert CliRunner().invoke(cli, ["reconcile"]).exception.args[0].startswith("Say whose usage")  # type: ignore[union-attr]


def provider_line_after(world: World, *command: str) -> str:
    CliRunner().invoke(cli, [*command])
    return str(provider_line(world.connection))


def test_the_command_prints_differences_first(world: World, configured: str) -> None:
    ran = CliRunner().invoke(cli, ["reconcile"])
    assert ran.exit_code == 1
    said = " ".join(ran.output.split())
    assert "3 periods: 1 differ, 0 within the threshold, 2 identical" in said
    assert sorted(TOKENS, key=said.index) == ["acme", "birch", "cobalt"]
    assert "acme tokens, 2026-01-01 to 2026-02-01: quantity +0.5: theirs 448, ours 447.5" in said
    path = Path(configured.removeprefix("csv:"))
    path.write_text(path.read_text().replace(",448", ",447.5"))
    assert CliRunner().invoke(cli, ["reconcile", "--source", configured]).exit_code == 0
    span = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-02-01T00:00:00Z"]
    assert CliRunner().invoke(cli, ["reconcile", *span]).exit_code == 0
    for wrong in (
        span[:2],
        [*span[:3], "2025-02-01T00:00:00Z"],
        ["--from", "2026-01-01", *span[2:]],
    ):
        assert CliRunner().invoke(cli, ["reconcile", *wrong]).exit_code == 2


def test_a_release_lets_a_differing_invoice_go(
    world: World, configured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_up(world)
    monkeypatch.setenv("METERING_PROVIDER_GATE", "hold")
    CliRunner().invoke(cli, ["reconcile"])
    assert held(world).keys() == {"acme"}
    issued = issuing.issue(world.database, JANUARY, after(JANUARY)).issued
    assert "acme" not in {each.tenant_id for each in issued}
    ((draft_id,),) = world.rows(
        "select draft_id from invoices.held_invoices where reason = 'provider_differs'"
    )
    released = issuing.release(world.database, draft_id, by="finance", why="their error", now=NOW)
    assert "provider_differs" in released
    draw_up(world)
    issued = issuing.issue(world.database, JANUARY, after(JANUARY)).issued
    assert "acme" in {each.tenant_id for each in issued}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROVIDER_THRESHOLD_PERCENT", "NaN"),
        ("PROVIDER_THRESHOLD_PERCENT", "0,01"),
        ("PROVIDER_THRESHOLD_PERCENT", "-1"),
        ("PROVIDER_GATE", "stop"),
        ("STRIPE_GROUPING", "minute"),
    ],
)
def test_settings_that_cannot_be_read_are_named(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"METERING_{name}"):
        load({f"METERING_{name}": value})


def test_every_cause_has_advice(world: World) -> None:
    text = (
        Path(stripe_meters.__file__).parents[3]
        / "dbt_project/models/reconciliation/provider_differences.sql"
    ).read_text()
    assert [each for each in ADVICE if f"'{each}'" not in text] == []
