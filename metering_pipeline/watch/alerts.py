"""Telling people: each trouble once when it is grave, and once when it is over, by Apprise."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psycopg

from metering_pipeline.errors import MeteringError
from metering_pipeline.settings import Settings
from metering_pipeline.watch.troubles import KINDS, Trouble, note_told, untold

log = logging.getLogger(__name__)

SECONDS = 5
"""Seconds that each place may take to be connected to, and to answer: a look must not wait for a dead one."""


class AlertError(MeteringError):
    """A place to tell troubles to that cannot be read; the message does not quote it, since it holds a key."""


def tell(connection: psycopg.Connection, settings: Settings, now: datetime) -> None:
    """Tell what nobody was told yet: what has begun in one message, what is over in another. Does nothing without
    METERING_ALERT_URLS.

    What no place took is tried again at the next look; one that took it is enough, else the others would be told
    again and again. Nothing is raised for a place that does not answer. Raises AlertError for a URL that is none.
    """
    if settings.alert_urls is None:
        return
    news = untold(connection, now)
    for over in (False, True):
        troubles = [each for each in news if (each.ended_at is not None) == over]
        if not troubles:
            continue
        silent = send(settings.alert_urls, *_message(troubles, over), over)
        told = len(silent) < len(settings.alert_urls.split())
        note_told(connection, troubles, now, told)
        for place in silent:
            log.warning(
                "place %s of METERING_ALERT_URLS did not take what is to be told of %s%s",
                place,
                ", ".join(f"{each.kind} {each.subject}" for each in troubles),
                "" if told else "; tried again at the next look",
            )


def _message(troubles: Sequence[Trouble], over: bool) -> tuple[str, str]:
    """Title and text, without anything of a customer's."""
    ending = " over" if over and troubles[1:] else " is over" if over else ""
    if troubles[1:]:
        title = f"Metering: {len(troubles)} troubles{ending}"
    else:
        title = f"Metering: {troubles[0].kind} {troubles[0].subject}{ending}"
    return title, "\n".join(_line(each, over) for each in troubles)


def _line(trouble: Trouble, over: bool) -> str:
    kind = KINDS[trouble.kind]
    since = f"{trouble.seen_since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    line = f"{trouble.kind} {trouble.subject}: {kind.says}. {trouble.detail}. Seen since {since}."
    return line if over else f"{line} What to do: {kind.page}"


def send(urls: str, title: str, text: str, over: bool) -> list[int]:
    """Send a message to every place; the numbers, from 1, of those that did not take it. Raises AlertError."""
    import apprise  # of use only when something is wrong

    kind = apprise.NotifyType.SUCCESS if over else apprise.NotifyType.FAILURE
    return [
        number
        for number, place in enumerate(_places(urls), start=1)
        if not place.notify(body=text, title=title, notify_type=kind)
    ]


@cache
def _places(urls: str) -> list[Any]:
    import apprise

    for each in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(each).setLevel(logging.CRITICAL)  # they name the places, keys included
    places = []
    for number, url in enumerate(urls.split(), start=1):
        place = apprise.Apprise()
        joined = "&" if "?" in url else "?"
        if not place.add(f"{url}{joined}cto={SECONDS}&rto={SECONDS}"):
            raise AlertError(
                f"Place {number} of METERING_ALERT_URLS cannot be read. Write it as Apprise does, as "
                "jsons://host/path for a webhook."
            )
        places.append(place)
    return places
