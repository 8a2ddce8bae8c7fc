"""Issued documents of every kind, written straight into the frozen tables, for the tests of statements."""

import hashlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

JANUARY = datetime(2025, 12, 31, 23, tzinfo=UTC)
FEBRUARY = datetime(2026, 1, 31, 23, tzinfo=UTC)
"""The beginnings of the months in Berlin."""

HOSTILE = '<script>alert("x")</script> & Söhne {{ 7 * 7 }} #let *x* = $y$ \\ @z'
GREEK_AND_CYRILLIC = "Ωμέγα Ενέργεια · Жуковский и Ћирић · Łódź Ağrë"
JAPANESE = "株式会社サクラ"


class Archive:
    """Writes documents as issuing would leave them; what is not given is a default."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self._issued = datetime(2026, 2, 6, tzinfo=UTC)
        self._heads: dict[str, tuple[int, str]] = {}
        self._names: dict[str, dict[str, Any]] = {}
        self._measures: dict[str | None, dict[str, str]] = {None: {}}

    def insert(self, table: str, **row: Any) -> None:
        schema, name = table.split(".")
        statement = sql.SQL("insert into {} ({}) overriding system value values ({})").format(
            sql.Identifier(schema, name),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        )
        values = {
            key: Jsonb(value) if isinstance(value, dict) else value for key, value in row.items()
        }
        self.connection.execute(statement, values)

    def sell(self, tenant: str, name: str, currency: str, digits: int, zone: str = "Europe/Berlin",
             entity: str = "eu", seller: str = "Northwind AI GmbH") -> None:  # fmt: skip
        """A customer with a plan and the subscription sub-<tenant>, whose versions are 1 and 2."""
        self._names[tenant] = {
            "tenant_name": name, "legal_entity_name": seller, "plan_name": "Growth", "time_zone": zone,
            "minor_digits": digits,
        }  # fmt: skip
        for table, row in {
            "catalog.currencies": {"currency": currency, "minor_digits": digits},
            "catalog.legal_entities": {"legal_entity": entity, "name": seller, "series": entity.upper()},
            "catalog.plans": {
                "plan_id": f"growth-{currency}", "name": "Growth", "currency": currency,
                "billing_interval": "month", "interval_count": 1, "minimum_document_amount": 0,
            },
        }.items():  # fmt: skip
            with self.connection.transaction():
                key = next(iter(row))
                found = self.connection.execute(
                    sql.SQL("select 1 from {} where {} = %s").format(
                        sql.Identifier(*table.split(".")), sql.Identifier(key)
                    ),
                    [row[key]],
                ).fetchone()
                if found is None:
                    self.insert(table, **row)
        self.insert(
            "catalog.tenants", tenant_id=tenant, name=name, legal_entity=entity, billable=True
        )
        for version in (1, 2):
            self.insert(
                "catalog.subscriptions", subscription_id=f"sub-{tenant}", version=version,
                tenant_id=tenant, plan_id=f"growth-{currency}", time_zone=zone,
                anchor_date=date(2026, 1, 1), started_at=JANUARY, recorded_at=JANUARY,
                recorded_by="sales",
            )  # fmt: skip

    def measure(self, metric: str, aggregation: str, unit: str) -> None:
        self._measures[metric] = {"aggregation": aggregation, "unit": unit}
        self.insert(
            "catalog.metrics", metric=metric, event_type="api.request", aggregation=aggregation,
            value_property=None if aggregation == "count" else metric, dimensions=[], unit=unit,
            filter={}, description=metric,
        )  # fmt: skip

    def price(self, charge: str, version: int, currency: str, model: str) -> None:
        """A version of a charge, unless it is there."""
        known = self.connection.execute(
            "select 1 from catalog.charges where charge_id = %s and version = %s", [charge, version]
        )
        if known.fetchone() is None:
            self.insert(
                "catalog.charges", charge_id=charge, version=version, plan_id=f"growth-{currency}",
                component="usage", metric=None, dimension_route={}, charge_model=model,
                timing="arrears", description=charge, effective_from=date(2026, 1, 1),
                takes_effect="next_period", quantity_digits=0, included_quantity=0,
                package_size=Decimal(500) if model == "package" else None, discount_percent=0,
                discount_amount=0, minimum_amount=0, prorated=True,
            )  # fmt: skip

    def issue(self, tenant: str, currency: str, lines: list[dict[str, Any]], kind: str = "invoice",
              entity: str = "eu", **sums: Any) -> str:  # fmt: skip
        """A document with its lines; tiers, usage and taxes are given with the lines. Its number."""
        count, last = self._heads.get(entity, (0, "0" * 64))
        number = f"{entity.upper()}-{count + 1:06d}"
        sha256 = hashlib.sha256(number.encode()).hexdigest()
        self._heads[entity] = (count + 1, sha256)
        self._issued += timedelta(hours=1)
        amounts = {
            "total": sum((Decimal(line["amount"]) for line in lines), Decimal(0)),
            "coupon_amount": _sum(lines, "coupons", 1),
            "tax_amount": _sum(lines, "taxes", 3),
            "credit_amount": Decimal(0),
        } | {key: sums.pop(key) for key in list(sums) if key.endswith("_amount")}
        due = (
            amounts["total"]
            - amounts["coupon_amount"]
            + amounts["tax_amount"]
            - amounts["credit_amount"]
        )
        self.insert(
            "invoices.issued_invoices", invoice_number=number, series=entity.upper(),
            series_number=count + 1, document_kind=kind, tenant_id=tenant,
            subscription_id=f"sub-{tenant}", legal_entity=entity, currency=currency, **amounts,
            amount_due=due, billing_date=self._issued.date() - timedelta(days=1), bill_at=FEBRUARY,
            catalog_version=1, issued_at=self._issued, content="{}", content_sha256=sha256,
            previous_sha256=last, **self._names[tenant], **sums,
        )  # fmt: skip
        for place, line in enumerate(lines, start=1):
            self._freeze(number, place, tenant, currency, dict(line))
        return number

    def _freeze(
        self, number: str, place: int, tenant: str, currency: str, line: dict[str, Any]
    ) -> None:
        place_of = {"invoice_number": number, "line_number": place}
        below = {name: line.pop(name, []) for name in ("tiers", "usage", "taxes", "coupons")}
        model = line.pop("model", None) or (
            "flat" if line.get("component") == "flat" else "per_unit"
        )
        self.price(line["description"], line.get("charge_version", 1), currency, model)
        self.insert("invoices.issued_invoice_lines", **place_of, **{
            "subscription_id": f"sub-{tenant}", "tenant_id": tenant, "charge_id": line["description"],
            "charge_version": 1, "subscription_version": 1, "component": "usage", "metric": "requests",
            "slice_start": JANUARY, "slice_end": FEBRUARY, "quantity": Decimal(0),
            "event_count": sum(each[1] for each in below["usage"]),
            "event_digest": sum((each[3] for each in below["usage"]), Decimal(0)),
            "payload_digest": sum((each[3] for each in below["usage"]), Decimal(0)),
            "rated_amount": Decimal(line["amount"]), "currency": currency, "kind": "regular",
            "charge_model": model, "package_size": Decimal(500) if model == "package" else None,
            **self._measures[line.get("metric", "requests")],
        } | line)  # fmt: skip
        for tier, (quantity, unit_amount, flat_amount, amount, *more) in enumerate(
            below["tiers"], 1
        ):
            rate, values = more or (0, {})
            self.insert(
                "invoices.issued_tier_slices", **place_of, tier=tier, quantity=Decimal(quantity),
                unit_amount=Decimal(unit_amount), flat_amount=Decimal(flat_amount),
                rate_percent=Decimal(rate), dimension_values=values, amount=Decimal(amount),
            )  # fmt: skip
        for day, events, value, digest in below["usage"]:
            self.insert(
                "invoices.issued_usage", **place_of, day=day, event_count=events, value_sum=value,
                event_digest=digest, payload_digest=digest,
            )  # fmt: skip
        for code, rate, taxable, tax in below["taxes"]:
            self.insert(
                "invoices.issued_invoice_taxes", **place_of, tax_code=code, rate=Decimal(rate),
                taxable_amount=Decimal(taxable), tax_amount=Decimal(tax),
            )  # fmt: skip
        for coupon, amount, description in below["coupons"]:
            self.insert(
                "invoices.coupon_entries", **place_of, coupon_id=coupon, amount=Decimal(amount),
                description=description,
            )  # fmt: skip


def _sum(lines: list[dict[str, Any]], name: str, place: int) -> Decimal:
    return sum((Decimal(row[place]) for line in lines for row in line.get(name, [])), Decimal(0))


def days(
    count: int, events: int, value: str = "1", digest: int = 1_234_567_890_123_456_789
) -> list[Any]:
    """Usage of so many days of January: (day, events, value, digest)."""
    return [
        (date(2026, 1, 1) + timedelta(days=place), events + place * 7 % 13 * events // 10,
         Decimal(value) * (events + place * 7 % 13), Decimal(digest + place) * (-1) ** place)
        for place in range(count)
    ]  # fmt: skip


def fill(connection: psycopg.Connection) -> dict[str, str]:
    """Documents of every kind: their numbers by what they are."""
    archive = Archive(connection)
    for metric, aggregation, unit in (
        ("requests", "count", "requests"), ("tokens", "sum", "tokens"), ("volume", "sum", "EUR"),
        ("seats", "max", "seats"),
    ):  # fmt: skip
        archive.measure(metric, aggregation, unit)
    archive.sell("fjord", GREEK_AND_CYRILLIC, "EUR", 2)
    archive.sell("hostile", HOSTILE, "EUR", 2)
    archive.sell("sakura", JAPANESE, "JPY", 0, "Asia/Tokyo", "jp", "Northwind AI K.K.")
    archive.sell(
        "diwan",
        "Diwan " + "of a very long name " * 10,
        "KWD",
        3,
        "Asia/Kathmandu",
        "kw",
        "Northwind AI W.L.L.",
    )
    fee = {"description": "Platform fee", "component": "flat", "metric": None, "amount": "45.00",
           "tiers": [("1", "0", "45.00", "45")], "taxes": [("vat-de", "19", "45.00", "8.55")]}  # fmt: skip
    numbers = {"one line": archive.issue("fjord", "EUR", [fee])}
    numbers["many lines"] = archive.issue(
        "fjord", "EUR", _many_lines(), credit_amount=Decimal("25.00"),
    )  # fmt: skip
    for credit, kind, amount, of in (
        ("welcome", "grant", "100", None), ("welcome", "applied", "-25.00", numbers["many lines"]),
    ):  # fmt: skip
        archive.insert(
            "invoices.credit_entries", credit_id=credit, kind=kind, tenant_id="fjord", currency="EUR",
            amount=Decimal(amount), priority=1 if kind == "grant" else None,
            expires_on=date(2026, 12, 31) if kind == "grant" else None, invoice_number=of,
            entered_at=JANUARY, entered_by="sales", reason="Welcome credit",
        )  # fmt: skip
    archive.price("API requests", 2, "EUR", "graduated")
    archive.insert(
        "catalog.corrections", correction_id="c1", subscription_id="sub-fjord",
        charge_id="API requests", period_start=JANUARY, version=2, recorded_by="finance",
        reason="Tier 2 was priced at 0.018 by a slip of the pen.", recorded_at=JANUARY,
    )  # fmt: skip
    numbers["credit note"] = archive.issue(
        "fjord", "EUR", _adjustments(), "credit_note",
    )  # fmt: skip
    numbers["void"] = archive.issue(
        "fjord", "EUR",
        [fee | {"amount": "-45.00", "rated_amount": Decimal("-45.00"), "tiers": [],
                "taxes": [("vat-de", "19", "-45.00", "-8.55")]}],
        "void", refers_to=numbers["one line"], decided_by="finance",
        reason="The customer's address was another one.",
    )  # fmt: skip
    numbers["write-off"] = archive.issue(
        "fjord", "EUR", [fee | {"amount": "-45.00", "tiers": [], "taxes": []}], "write_off",
        refers_to=numbers["many lines"], decided_by="finance", reason="Insolvency.",
    )  # fmt: skip
    numbers["hostile"] = archive.issue(
        "hostile", "EUR", [fee | {"description": HOSTILE, "taxes": []}]
    )
    yen = {"description": "API requests", "quantity": Decimal(1_234_567), "amount": "154321",
           "tiers": [("1234567", "0.125", "0", "154320.875")], "usage": days(31, 40_000),
           "slice_start": datetime(2025, 12, 31, 15, tzinfo=UTC),
           "slice_end": datetime(2026, 1, 31, 15, tzinfo=UTC)}  # fmt: skip
    numbers["yen"] = archive.issue("sakura", "JPY", [yen], entity="jp")
    dinar = {"description": "Volume of payments, " + "spelled out at great length " * 6, "metric": "volume",
             "quantity": Decimal("98765.4321"), "amount": "2963.963", "usage": days(20, 3, "0.00125"),
             "tiers": [("98765.4321", "0", "1.000", "2963.962963", "3", {})],
             "slice_end": datetime(2026, 1, 20, 4, 52, tzinfo=UTC)}  # fmt: skip
    numbers["dinar"] = archive.issue("diwan", "KWD", [dinar], entity="kw")
    return numbers


def _many_lines() -> list[dict[str, Any]]:
    requests = {
        "description": "API requests", "quantity": Decimal(7_250), "amount": "11.63", "model": "graduated",
        "tiers": [("1000", "0", "0", "0"), ("4000", "0.0018", "1.50", "8.70"), ("2250", "0.0013", "0", "2.925")],
        "usage": days(31, 180),
    }  # fmt: skip
    lines = [
        requests,
        {"description": "API requests", "component": "discount", "amount": "-1.16"},
        {"description": "API requests", "component": "minimum", "amount": "4.53"},
    ]
    for model in ("small", "medium", "large", "huge"):
        for way in ("Input", "Output"):
            lines.append({
                "description": f"{way} tokens, {model} model", "metric": "tokens",
                "quantity": Decimal(3_038_258), "amount": "18.23",
                "tiers": [("3038258", "0.000006", "0", "18.229548")],
                "usage": days(31, 90, "321.5"), "taxes": [("vat-de", "19", "18.23", "3.46")],
            })  # fmt: skip
    regions = [
        ("1200", "0.01", "0", "12", "0", {"region": "eu"}),
        ("800", "0.0125", "0", "10", "0", {"region": "us", "tier": "cold"}),
    ]
    lines += [
        {"description": "Egress by region", "model": "matrix", "quantity": Decimal(2000), "amount": "22.00",
         "tiers": regions, "coupons": [("SPRING", "10.00", "10 off in spring")],
         "taxes": [("vat-de", "19", "12.00", "2.28")]},
        {"description": "Text messages", "model": "package", "quantity": Decimal(1_201), "amount": "15.00",
         "tiers": [("1201", "0", "5.00", "15")]},
        {"description": "Payments", "model": "percentage", "metric": "volume", "quantity": Decimal("1234.50"),
         "amount": "44.96", "tiers": [("1234.50", "0", "0", "43.2075", "3.5", {}), ("15", "0.10", "0", "1.5"), ("2", "0", "0", "0.25")], "usage": days(3, 5, "7.25"),
         "taxes": [("vat-de", "19", "44.96", "8.54")]},
        {"description": "Peak seats", "metric": "seats", "quantity": Decimal(12), "amount": "60.00",
         "tiers": [("12", "5", "0", "60")], "usage": days(12, 2)},
        {"description": "Plan commitment", "component": "commitment", "metric": None, "amount": "20.00"},
        {"description": "Platform fee", "component": "flat", "metric": None, "amount": "45.00",
         "slice_start": FEBRUARY, "slice_end": datetime(2026, 2, 28, 23, tzinfo=UTC),
         "tiers": [("1", "0", "45.00", "45")]},
        {"description": "Support", "component": "flat", "metric": None, "amount": "19.35",
         "slice_start": datetime(2026, 1, 12, 4, 52, tzinfo=UTC), "slice_end": FEBRUARY,
         "tiers": [("1", "0", "30", "19.35483870967741935483")]},
    ]  # fmt: skip
    return lines


def _adjustments() -> list[dict[str, Any]]:
    usage = days(31, 180)
    late = [
        *usage[:11],
        (usage[11][0], usage[11][1] - 40, usage[11][2], usage[11][3] + 5),
        *usage[12:],
    ]
    return [
        {"description": "API requests", "kind": "adjustment", "charge_version": 2,
         "quantity": Decimal(7_210), "rated_amount": Decimal("9.58"), "amount": "-2.05", "usage": late,
         "tiers": [("1000", "0", "0", "0"), ("4000", "0.0017", "0", "6.80"), ("2210", "0.00126", "0", "2.7846")],
         "taxes": [("vat-de", "19", "-2.05", "-0.39")]},
        {"description": "API requests", "component": "minimum", "kind": "adjustment",
         "rated_amount": Decimal("6.42"), "amount": "1.89"},
        {"description": "Platform fee", "component": "flat", "metric": None, "kind": "adjustment",
         "subscription_version": 2, "slice_start": FEBRUARY, "rated_amount": Decimal("7.00"),
         "slice_end": datetime(2026, 2, 28, 23, tzinfo=UTC), "amount": "-38.00",
         "taxes": [("vat-de", "19", "-38.00", "-7.22")]},
        {"description": "Storage", "kind": "adjustment", "quantity": Decimal("12.5"), "amount": "0.06",
         "tiers": [("12.5", "0.005", "0", "0.0625")], "usage": days(2, 1)},
    ]  # fmt: skip
