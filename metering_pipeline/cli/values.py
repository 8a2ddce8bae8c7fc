"""What options and arguments may look like."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from metering_pipeline.settings import parse_day, parse_hour, parse_instant, within_reach

if TYPE_CHECKING:
    from metering_pipeline.reconciliation.difference_causes import Span


class _Moment(click.ParamType[datetime]):
    """An instant, however it is written: ``parse`` raises ValueError with what to write."""

    def parse(self, text: str) -> datetime:
        raise NotImplementedError

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return self.parse(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class Hour(_Moment):
    """An hour in UTC, written 2026-01-31T13."""

    name = "hour"

    def parse(self, text: str) -> datetime:
        return parse_hour(text)


class Day(click.ParamType[date]):
    """A UTC day, written 2026-01-31."""

    name = "date"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> date:
        if isinstance(value, date):
            return value
        try:
            return parse_day(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class Amount(click.ParamType[Decimal]):
    """An amount of money, written 100.00."""

    name = "amount"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        text = str(value)
        if not re.fullmatch(r"-?[0-9]{1,20}([.][0-9]{1,18})?", text):
            self.fail(f"{text!r}: write an amount with a point, as 100.00", param, ctx)
        return Decimal(text)


class Instant(_Moment):
    """An instant with its offset, written 2026-01-31T13:00:00Z."""

    name = "instant"

    def parse(self, text: str) -> datetime:
        return parse_instant(text)


class Month(_Moment):
    """A calendar month in UTC, written 2026-01."""

    name = "month"

    def parse(self, text: str) -> datetime:
        try:
            month = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
        except ValueError:
            raise ValueError("write a month as 2026-01") from None
        return within_reach(month)


class Quantity(click.ParamType[Decimal]):
    """A quantity: a plain decimal number, at most 20 digits before and 18 after the point."""

    name = "quantity"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        if not re.fullmatch(r"[0-9]{1,20}([.][0-9]{1,18})?", str(value), re.ASCII):
            self.fail(f"{value!r}: write a decimal number as 1250000 or 0.5", param, ctx)
        return Decimal(str(value))


class HourOrDay(click.ParamType[datetime | date]):
    """An hour in UTC, written 2026-01-31T13, or a UTC day, 2026-01-31."""

    name = "hour"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | date:
        if isinstance(value, date):
            return value
        if "T" in str(value):
            return Hour().convert(value, param, ctx)
        return Day().convert(value, param, ctx)


class HourOrDocument(click.ParamType[datetime | str]):
    """A landing hour, written 2026-01-31T13, or a document's number."""

    name = "hour or document"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | str:
        if isinstance(value, datetime):
            return value
        if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", str(value)):
            return Hour().convert(value, param, ctx)
        return str(value)


class Window(click.ParamType["Span"]):
    """The window of a law: 2026-01-31T13, 2026-01-31 or 2026-01."""

    name = "window"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> "Span":
        from metering_pipeline.reconciliation.difference_causes import Span

        if isinstance(value, Span):
            return value
        try:
            return Span.parse(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
