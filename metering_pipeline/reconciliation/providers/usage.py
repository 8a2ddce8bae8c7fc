"""What a provider says of usage, and the one thing that every provider can do: tell it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Protocol

from metering_pipeline.errors import MeteringError

NUMBER = re.compile(r"-?[0-9]{1,20}([.][0-9]{1,18})?", re.ASCII)
SHOWN = 10


class ProviderError(MeteringError):
    """A provider's usage that cannot be had or read; the message says where, and what to do."""


@dataclass(frozen=True)
class ProviderUsage:
    """A value that a provider has for a customer and meter, in the metric's unit, of [starts_at, ends_at).

    Customer and meter are as the provider names them; the place leads to the row: a file and line, or an id.
    """

    customer: str
    meter: str
    starts_at: datetime
    ends_at: datetime
    value: Decimal
    place: str


@dataclass(frozen=True)
class Span:
    """Instants from start up to, not including, end; any instants, not only hours."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{written(self.start)} to {written(self.end)}"


@dataclass(frozen=True)
class Names:
    """What a provider calls our tenants and metrics; those mapped to None are not ours on purpose."""

    tenants: Mapping[str, str | None]
    metrics: Mapping[str, str | None]


class Provider(Protocol):
    """Where usage is fetched from.

    The source, as csv:PATH, names it in all that is kept. One that tells all knows every meter and customer: of
    which it tells nothing, it has nothing.
    """

    source: str
    tells_all: bool

    def usage(self, span: Span | None, names: Names) -> Iterable[ProviderUsage]:
        """What it has of a span (None: all that it has). Raises ProviderError; then nothing is kept."""


def written(instant: datetime) -> str:
    """An instant in UTC as people read it: a midnight by its date, others without what is zero at the end."""
    text = instant.astimezone(UTC).isoformat().removesuffix("+00:00")
    return (
        text.removesuffix("T00:00:00")
        if text.endswith("T00:00:00")
        else text.removesuffix(":00") + "Z"
    )


def within(span: Span | None, each: ProviderUsage) -> bool:
    """Whether a row belongs to the span. Raises ProviderError for one that lies on its edge."""
    if span is None or (span.start <= each.starts_at and each.ends_at <= span.end):
        return True
    if each.ends_at <= span.start or span.end <= each.starts_at:
        return False
    raise ProviderError(
        f"{each.place}: the period {Span(each.starts_at, each.ends_at)} reaches beyond {span}, and a part of "
        "its value is not known. Give --from and --to at edges of the provider's periods, or neither."
    )


def require_apart(rows: Sequence[ProviderUsage]) -> None:
    """Raise ProviderError where two rows of a customer and meter say something of the same instant."""
    ordered = sorted(rows, key=lambda each: (each.customer, each.meter, each.starts_at))
    overlapping = [
        f"{later.place}: {later.customer} {later.meter} {Span(later.starts_at, later.ends_at)} overlaps {earlier.place}"
        for earlier, later in pairwise(ordered)
        if (earlier.customer, earlier.meter) == (later.customer, later.meter)
        and later.starts_at < earlier.ends_at
    ]
    refuse(overlapping, "would be counted twice")


def refuse(problems: Sequence[str], what: str) -> None:
    """Raise ProviderError with the first of the problems, if there are any."""
    if problems:
        more = f"\n… and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        heading = (
            f"{len(problems)} row{'' if len(problems) == 1 else 's'} {what}; nothing was kept."
        )
        raise ProviderError("\n".join([heading, *problems[:SHOWN]]) + more)


def parse_value(text: str) -> Decimal:
    """A plain decimal number, exact. Raises ValueError with what to write."""
    if not NUMBER.fullmatch(text):
        raise ValueError(
            "write a plain decimal number, at most 20 digits before and 18 after the point"
        )
    return Decimal(text)
