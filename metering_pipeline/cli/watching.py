"""The command by which machines watch the pipeline."""

import sys

import click

from metering_pipeline import settings
from metering_pipeline.cli.group import cli, console


@cli.command()
@click.option("--serve", is_flag=True, help="Serve them to Prometheus.")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Where it is served; whoever reaches it reads it.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=9464, show_default=True)
def metrics(serve: bool, host: str, port: int) -> None:
    """The figures of metering status as Prometheus reads them: printed once, or served.

    It only reads, as an analyst, and gives up after METERING_WATCH_TIMEOUT_SECONDS. Printed, an error is one,
    with exit code 1; served, it is metering_up 0.
    """
    from metering_pipeline.postgres import named_database, open_database
    from metering_pipeline.watch.prometheus import exposition, serving

    configured = settings.load()
    # a server of one's own need not be there yet: that it is not is a figure, too
    database = named_database(configured) or open_database(configured, reading=True)
    if not serve:
        sys.stdout.buffer.write(exposition(database, configured))
        return
    with serving(database, configured, port, host) as wait:
        console.print(f"Metrics at http://{host}:{port}/metrics (Ctrl-C ends it)")
        wait()
