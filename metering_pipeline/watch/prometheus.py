"""The figures and troubles as Prometheus reads them, printed once or served."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from metering_pipeline.errors import MeteringError
from metering_pipeline.postgres import Database
from metering_pipeline.settings import Settings
from metering_pipeline.watch.figures import ABOUT, Figures, read_figures, reading
from metering_pipeline.watch.troubles import KINDS, Trouble, grave

HOST = "127.0.0.1"
PREFIX = "metering_"
ENDING = (signal.SIGINT, signal.SIGTERM)


class PortTaken(MeteringError):
    """The port cannot be listened on."""


log = logging.getLogger(__name__)


def exposition(database: Database, settings: Settings) -> bytes:
    """The figures of now in Prometheus' text format. Raises DatabaseError where they cannot be read."""
    registry = CollectorRegistry()
    registry.register(_Read(families(database, settings)))
    return generate_latest(registry)


@contextmanager
def serving(
    database: Database, settings: Settings, port: int, host: str = HOST
) -> Iterator[Callable[[], object]]:
    """Serve the figures, read anew at each request. Gives what waits until the user
    interrupts, or the process is told to end. Raises PortTaken.
    """
    registry = CollectorRegistry()
    registry.register(_Live(database, settings))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise PortTaken(
            f"Nothing can be served at {host}:{port}: {error.strerror}. Choose another port: --port."
        ) from error
    ended = threading.Event()
    before = {sign: signal.signal(sign, lambda *_: ended.set()) for sign in ENDING}
    try:
        yield ended.wait
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for sign, handler in before.items():
            signal.signal(sign, handler)


class _Read:
    """Families that were read before: so that an error is one of the reading, not of the registry."""

    def __init__(self, read: list[Metric]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield from self._read


class _Live:
    """Reads at each request. What cannot be read is metering_up 0, not an answer that never comes."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        try:
            yield from families(self._database, self._settings)
        except MeteringError as error:
            log.error("%s", error)
            yield _up(0)


def families(database: Database, settings: Settings) -> list[Metric]:
    """Every figure and the troubles by kind, as metric families."""
    started = time.monotonic()
    with reading(database, settings) as connection:
        figures = read_figures(connection, settings)
        troubles = grave(connection, figures, settings, settings.now())
    found = [_family(figure, figures) for figure in ABOUT]
    took = GaugeMetricFamily(PREFIX + "read_seconds", "Time that reading the figures took.")
    took.add_metric([], time.monotonic() - started)
    return [_up(1), took, _troubles(troubles), *(each for each in found if each.samples)]


def _up(value: int) -> Metric:
    family = GaugeMetricFamily(PREFIX + "up", "1 if the figures could be read, 0 if not.")
    family.add_metric([], value)
    return family


def _troubles(troubles: list[Trouble]) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "troubles", "Grave troubles that stand, by kind (docs/watch.md).", labels=["kind"]
    )
    for kind in KINDS:
        family.add_metric([kind], sum(each.kind == kind for each in troubles))
    return family


def _family(figure: str, figures: Figures) -> Metric:
    about = ABOUT[figure]
    kind = CounterMetricFamily if figure.endswith("_total") else GaugeMetricFamily
    family = kind(PREFIX + figure, about.says, labels=[about.label] if about.label else [])
    for label, value in figures.labels(figure).items():
        family.add_metric([label] if about.label else [], float(value))
    return family
