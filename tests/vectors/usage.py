"""Cases about usage: what metrics make of events, and which events count."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from itertools import product

from metering_pipeline.settings import hour_of
from tests.vectors.asking import RATED, Asking, asks
from tests.vectors.cases import Given, NotSupportedError, instant
from tests.vectors.world import Customer, zone_of


def span_of(given: Given) -> tuple[datetime, datetime, str]:
    """The period, as instants and in its zone."""
    zone = given.take("timezone", "UTC")
    if "period" in given:
        start, end = map(instant, given.take("period"))
        return start, end, zone
    days = map(datetime.fromisoformat, given.take("period_local_dates"))
    start, end = (datetime.combine(day, time(), zone_of(zone)) for day in days)
    return start, end, zone


@asks("aggregate", world="calendar")
def aggregate(given: Given, customer: Customer) -> Asking:
    """The quantity of the period's line, the events in it, and its amount; a balance from whole periods before.

    A filter by several values of a dimension is a charge for each of them, routed by it.
    """
    aggregation, recurring = given.take("aggregation"), given.take("recurring", False)
    if aggregation not in AGGREGATIONS:
        raise NotSupportedError(f"the aggregation {aggregation}")
    start, end, zone = span_of(given)
    wanted = dict(given.take("filter", {}))
    single = {name: values[0] for name, values in wanted.items() if len(values) == 1}
    routes = routes_of({name: wanted[name] for name in wanted.keys() - single.keys()})
    if len(routes) != 1 and aggregation not in ADDITIVE:
        raise NotSupportedError(f"a filter by several values of a dimension, of a {aggregation}")
    customer.metric(
        aggregation,
        filter=json.dumps(single),
        dimensions=json.dumps(sorted(wanted.keys() - single.keys())),
        value_property=None if aggregation == "count" else "value",
        percentile=given.take("percentile", None),
        recurring=str(recurring).lower(),
    )
    begun = start.astimezone(zone_of(zone))
    length = end.astimezone(zone_of(zone)).date() - begun.date()
    seen: dict[tuple[str, str], object] = {}
    for number, event in enumerate(given.parts("events")):
        key = event.take("id", str(number)), event.take("timestamp")
        value = event.take("value", None)
        if key in seen and seen[key] != value and aggregation != "count":
            raise NotSupportedError("a later copy of an event that replaces the earlier one")
        seen[key] = value
        while recurring and instant(key[1]) < begun:
            begun -= length
        properties = {"value": value, "operation": event.take("operation", None)}
        properties |= {name: event.take(name) for name in ("region", *wanted) if name in event}
        customer.use(
            Decimal(1), instant(key[1]), customer.name, key[0],
            properties={name: each for name, each in properties.items() if each is not None},
        )  # fmt: skip
    customer.plan(given.take("currency", "USD"), "day", length.days)
    price = {"unit_amount": given.take("unit_amount", 1)}
    for number, route in enumerate(routes):
        customer.charge(
            "per_unit", [price], f"charge-{number}", metric=customer.name, dimension_route=route
        )
    customer.subscribe(begun, end, zone=zone)
    yield RATED
    lines = customer.lines()[-len(routes) :]
    value = sum((line["quantity"] for line in lines), Decimal(0))
    return {
        "value": value,
        "value_round_5": round(value, 5),
        "events_count": Decimal(sum(line["event_count"] for line in lines)),
        "amount": sum((line["amount"] for line in lines), Decimal(0)),
    }


ADDITIVE = ("count", "sum", "weighted_sum")
"""Aggregations that are added over the values of a dimension."""

AGGREGATIONS = (*ADDITIVE, "min", "max", "latest", "unique_count", "percentile")


def routes_of(wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """A route for each combination of the values that a filter lets through; one for all without it."""
    combinations = product(*wanted.values())
    return [json.dumps(dict(zip(wanted, values, strict=True))) for values in combinations]


@asks("ingest", world="calendar")
def ingest(given: Given, customer: Customer) -> Asking:
    """Events of one instant, first those stored and then the batch; what of the batch is a duplicate."""
    given.take("scope", None)  # a tenant, here as there
    at = customer.world.start + timedelta(days=1)
    for stored in given.take("stored_ids"):
        customer.use(Decimal(1), at, customer.name, stored, landed_hour=customer.world.start)
    for number, each in enumerate(given.take("batch_ids")):
        customer.use(Decimal(1), at, customer.name, each, properties={"place": number})
    customer.plan("USD")
    customer.subscribe(customer.world.start)
    yield RATED
    rejected = customer.rows(
        """
        select landed.properties::jsonb ->> 'place' as place
        from landing.usage_events as landed
        left join ledger.usage_events as posted using (file_id, line_number)
        where landed.tenant_id = %s and landed.properties::jsonb ? 'place' and posted.file_id is null
        order by landed.line_number
        """
    )
    return {"rejected_indexes": [Decimal(row["place"]) for row in rejected]}


@asks("snapshot_quantity", world="calendar")
def snapshot_quantity(given: Given, customer: Customer) -> Asking:
    """The usage of a span as far as it had landed by an instant."""
    start, end = map(instant, given.take("period"))
    stored_before = given.instant("stored_before")
    if any(edge != hour_of(edge) for edge in (start, end, stored_before)):
        raise NotSupportedError("usage as landed by an instant within an hour")
    customer.metric("sum", value_property="value")
    for event in given.parts("events"):
        customer.use(
            Decimal(1), event.instant("timestamp"), customer.name,
            landed_hour=event.instant("stored"), properties={"value": event.take("value")},
        )  # fmt: skip
    customer.plan("USD")
    customer.subscribe(start, end)
    yield RATED
    found = customer.world.rows(
        "select value_sum from rollups.usage_as_landed_by(%s, %s, %s, %s, %s)",
        customer.name, customer.name, start, end, stored_before,
    )  # fmt: skip
    return {"quantity": sum((row["value_sum"] for row in found), Decimal(0))}
