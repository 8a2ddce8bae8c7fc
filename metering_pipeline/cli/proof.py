"""Commands that prove: why a line says what it says, what became of a request, what a difference comes from."""

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from metering_pipeline import settings
from metering_pipeline.cli.group import cli, console
from metering_pipeline.cli.values import Day, HourOrDay, HourOrDocument, Instant, Window


@cli.command()
@click.argument("document", required=False)
@click.argument("line", required=False, type=click.IntRange(1))
@click.option(
    "--hour",
    "opened",
    type=HourOrDay(),
    help="Open this hour of the line's usage, or the busiest of a day.",
)
@click.option("--all-events", is_flag=True, help="Read every event of the line from the ledger.")
@click.option("--since", type=HourOrDocument(),
              help="Why it changed: since a landing hour, or since another document knew it.")  # fmt: skip
@click.option("--tenant", metavar="TENANT", help="Whose request, or whose difference.")
@click.option(
    "--event", "correlation_id", metavar="CORRELATION_ID", help="Was this request billed?"
)
@click.option("--type", "event_type", metavar="EVENT_TYPE", help="The request's event type.")
@click.option(
    "--at", "occurred_at", type=Instant(), help="When the request happened: finds it at once."
)
@click.option(
    "--from", "first_day", type=Day(), help="The first UTC day to search for the request."
)
@click.option("--to", "last_day", type=Day(), help="The last UTC day to search (inclusive).")
@click.option(
    "--window", type=Window(), help="What differs in a window: a landing hour, a day or a month."
)
@click.option("--law", type=click.Choice(["L1", "L2", "L3", "L4", "L5"]), help="Of this law only.")
@click.option("--samples", type=click.IntRange(0, 1000), default=5, show_default=True,
              help="Events, changes or differing rows shown.")  # fmt: skip
def explain(document: str | None, line: int | None, samples: int, **options: Any) -> None:
    """Explain a line of a document or draft, a request, or a difference.

    \b
    metering explain US-000036           the lines of a document or a draft
    metering explain US-000036 1         a line: tiers, days, hours, events, file and line
    metering explain US-000036 1 --since 2026-01-15T00    why its usage changed
    metering explain --tenant acme --event req-1          was this request billed?
    metering explain --window 2026-01-12T10               what differs in a red window

    Each step is compared with the one before it. Exit code 1 if the chain does not hold.
    """
    asked = _asked(document, line, options)
    from metering_pipeline import explain as explaining

    if asked == "--window":
        well = explaining.explain_window(
            console, options["window"], options["law"], options["tenant"], max(samples, 1)
        )
    elif asked == "--event":
        searched = (
            options[name] for name in ("event_type", "occurred_at", "first_day", "last_day")
        )
        explaining.explain_event(console, options["tenant"], options["correlation_id"], *searched)
        well = True
    elif document is None or line is None:
        well = explaining.explain_document(console, str(document))
    elif options["since"] is not None:
        well = explaining.explain_change(console, document, line, options["since"], samples)
    else:
        well = explaining.explain_line(
            console, document, line, options["opened"], samples, options["all_events"]
        )
    sys.exit(0 if well else 1)


GOES_WITH = {
    "a document": {},
    "a line": {"opened": "--hour", "all_events": "--all-events", "since": "--since"},
    "--event": {
        "tenant": "--tenant", "event_type": "--type", "occurred_at": "--at", "first_day": "--from",
        "last_day": "--to", "correlation_id": "--event",
    },
    "--window": {"tenant": "--tenant", "law": "--law", "window": "--window"},
}  # fmt: skip
"""What may be asked of each thing that may be explained, by the option's parameter."""


def _asked(document: str | None, line: int | None, options: Mapping[str, Any]) -> str:
    """What is to be explained: a document, a line, --event or --window. Raises UsageError."""
    named = (document, options["correlation_id"], options["window"])
    if sum(each is not None for each in named) != 1:
        raise click.UsageError(
            "Give a document (and a line), or --tenant and --event, or --window."
        )
    asked = "a document" if line is None else "a line"
    if document is None:
        asked = "--event" if options["window"] is None else "--window"
    flags = {name: flag for each in GOES_WITH.values() for name, flag in each.items()}
    for name, value in options.items():
        if value not in (None, False) and name not in GOES_WITH[asked]:
            raise click.UsageError(f"{flags[name]} does not go with {asked}.")
    if options["since"] is not None and (options["opened"] or options["all_events"]):
        raise click.UsageError("--since answers another question than --hour and --all-events.")
    if isinstance(options["since"], datetime) and options["since"] > settings.load().now():
        raise click.UsageError(
            f"{options['since']:%Y-%m-%dT%H} has not begun: nothing can have changed since."
        )
    if asked == "--event":
        _check_search(options)
    return asked


def _check_search(options: Mapping[str, Any]) -> None:
    if options["tenant"] is None:
        raise click.UsageError("Whose request? Give --tenant too.")
    first, last = options["first_day"], options["last_day"]
    if options["occurred_at"] and (first or last):
        raise click.UsageError("Give --at, or --from and --to.")
    if first and last and last < first:
        raise click.UsageError("--to is before --from.")


@cli.command()
@click.argument("number")
@click.option("--to", "folder", type=click.Path(path_type=Path),
              help="The folder to write; default: <home>/evidence/NUMBER.")  # fmt: skip
def evidence(number: str, folder: Path | None) -> None:
    """Write the evidence of an issued document, for an auditor to check without this software.

    A new folder: the document's frozen text, Parquet files from its lines down to every event, their SHA-256,
    and a page that says what to compute and what must come out. Nothing of other tenants is in it. Exit
    code 1 if the events at hand are not what the document froze.
    """
    from metering_pipeline import explain as explaining

    sys.exit(0 if explaining.write(console, number, folder) else 1)
