"""Usage from Stripe: the summaries of its meters' events, through Stripe's own library.

Only reading requests are made, so each can be repeated. The library turns JSON numbers into floats; it keeps
each page's text too, and that is what values are read from, as exact decimals. A summary without events is
not listed. Stripe adds up events some time after it has got them.
"""

import ipaddress
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from metering_pipeline.reconciliation.providers.usage import (
    Names,
    ProviderError,
    ProviderUsage,
    Span,
)
from metering_pipeline.settings import Settings

if TYPE_CHECKING:
    from stripe import StripeClient

PAGE = 100
"""Rows a page: the most that Stripe gives."""

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.5
"""Doubled with each further attempt; where Stripe says how long to wait, that long."""

LONGEST_WAIT_SECONDS = 30.0

GROUPINGS = {"hour": 3600, "day": 86400}

T = TypeVar("T")
Page = Mapping[str, Any]

log = logging.getLogger(__name__)


class StripeMeters:
    """The meters of a Stripe account. Customers and meters are found through the catalog's names of them."""

    source = "stripe"
    tells_all = True

    def __init__(self, settings: Settings) -> None:
        self.grouping = settings.stripe_grouping
        self.client = _client(settings)

    def usage(self, span: Span | None, names: Names) -> Iterator[ProviderUsage]:
        """Hour by hour (or day by day) for the customers and meters that are ours; for those that map to
        nothing the whole span in one value. Raises ProviderError."""
        if span is None:
            raise ProviderError("Stripe has to be asked for a span: give --from and --to.")
        self._require_whole(span)
        meters = [each["id"] for each in self._all(self.client.v1.billing.meters.list)]
        customers = [each["id"] for each in self._all(self.client.v1.customers.list)]
        unknown = sorted(set(names.metrics) - set(meters))
        if unknown:
            raise ProviderError(
                f"Stripe has no meter {', '.join(unknown)}: correct provider_meters.csv (an id, as mtr_…)."
            )
        for number, customer in enumerate(sorted({*customers, *names.tenants}), start=1):
            log.info("Stripe: customer %s of %s", number, len(customers))
            if names.tenants.get(customer, "") is None:
                continue
            for meter in meters:
                if names.metrics.get(meter, "") is None:
                    continue
                mapped = customer in names.tenants and meter in names.metrics
                yield from self._summaries(customer, meter, span, grouped=mapped)

    def _summaries(
        self, customer: str, meter: str, span: Span, grouped: bool
    ) -> Iterator[ProviderUsage]:
        parameters: dict[str, Any] = {
            "customer": customer,
            "start_time": int(span.start.timestamp()),
            "end_time": int(span.end.timestamp()),
        }
        if grouped:
            parameters["value_grouping_window"] = self.grouping

        def ask(parameters: dict[str, Any]) -> Any:
            return self.client.v1.billing.meters.event_summaries.list(meter, parameters)  # type: ignore[arg-type]

        for each in self._all(ask, parameters):
            value = Decimal(each["aggregated_value"])
            if grouped or value:
                start, end = (
                    datetime.fromtimestamp(each[edge], UTC) for edge in ("start_time", "end_time")
                )
                yield ProviderUsage(customer, meter, start, end, value, f"stripe {each['id']}")

    def _require_whole(self, span: Span) -> None:
        seconds = GROUPINGS[self.grouping]
        if any(edge.timestamp() % seconds for edge in (span.start, span.end)):
            raise ProviderError(
                f"Stripe adds up by the {self.grouping} (UTC): {span} has an edge inside one. Give whole "
                f"{self.grouping}s, or compare this span by a CSV file or a table of your own."
            )

    def _all(
        self, ask: Callable[[Any], Any], parameters: Mapping[str, Any] | None = None
    ) -> Iterator[Page]:
        """The rows of all pages, their numbers exact."""
        page = _repeated(lambda: ask({**(parameters or {}), "limit": PAGE}))
        while not page.is_empty:
            yield from json.loads(page.last_response.body, parse_float=Decimal)["data"]
            page = _repeated(page.next_page)


def _client(settings: Settings) -> "StripeClient":
    try:
        import stripe
    except ImportError as error:
        raise ProviderError(
            "The library stripe is not installed: pip install 'metering-pipeline[stripe]'."
        ) from error
    if not settings.stripe_api_key:
        raise ProviderError(
            "METERING_STRIPE_API_KEY is not set: a restricted key that may read customers and billing meters."
        )
    # the library's own log quotes parts of the key where Stripe does
    logging.getLogger("stripe").setLevel(logging.CRITICAL)
    # retries are made here: the library makes none when Stripe says "too many requests", or breaks off a page
    options: dict[str, Any] = {"max_network_retries": 0}
    if settings.stripe_api_base is not None:
        options["base_addresses"] = {"api": _checked_base(settings.stripe_api_base)}
    return stripe.StripeClient(settings.stripe_api_key, **options)


def _checked_base(address: str) -> str:
    """An address to which a key may be sent: encrypted, or this machine's own."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback):
        raise ProviderError(
            "METERING_STRIPE_API_BASE must be https://…, or http:// on this machine: the key is sent there."
        )
    return address.rstrip("/")


def _repeated(ask: Callable[[], T]) -> T:
    """The answer to a reading request, asked again when Stripe is busy or broken, or the connection is."""
    import stripe

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except stripe.StripeError as error:
            status = error.http_status
            told = _told(error, attempt)
            wait = _wait_seconds(error, attempt)
        # raised out here, without the library's error in its context: that quotes parts of the key
        passing = status is None or status in (409, 429) or status >= 500
        if not passing or attempt == ATTEMPTS:
            raise ProviderError(told)
        log.info("Stripe: %s, again in %.1f s", status or "the connection broke", wait)
        time.sleep(wait)
    raise AssertionError("unreachable")


def _told(error: Any, attempts: int) -> str:
    """What went wrong, by status and request id."""
    if error.http_status in (401, 403):
        return (
            f"Stripe refused the key in METERING_STRIPE_API_KEY (status {error.http_status}). It needs read "
            "access to customers and billing meters, of the same account and mode (live or test)."
        )
    what = (
        f"answered with status {error.http_status}"
        if error.http_status
        else "could not be reached, or broke off its answer"
    )
    tried = f" ({attempts} attempts)" if attempts > 1 else ""
    parameter = f", about {error.param}" if getattr(error, "param", None) else ""
    return (
        f"Stripe {what}{parameter}{tried}; nothing was kept. Request {error.request_id or 'without an id'}. "
        "Ask again later; if it stays, look the request up in Stripe's log."
    )


def _wait_seconds(error: Any, attempt: int) -> float:
    asked = (error.headers or {}).get("retry-after", "")
    if asked.isdigit():
        return min(float(asked), LONGEST_WAIT_SECONDS)
    wait: float = FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
    return min(wait, LONGEST_WAIT_SECONDS) * (0.5 + random.random() / 2)  # noqa: S311  (not a secret)
