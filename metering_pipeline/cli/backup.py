"""Commands that put a home away and bring it back."""

from pathlib import Path

import click

from metering_pipeline import settings
from metering_pipeline.cli.group import console
from metering_pipeline.cli.pipeline import db
from metering_pipeline.progress import step


@db.command()
@click.argument("folder", type=click.Path(path_type=Path))
def backup(folder: Path) -> None:
    """Put the home away whole into a new FOLDER, while the pipeline goes on.

    The embedded database (Dagster's runs included), the landing files of the home, statements. The folder
    appears when it is whole; it holds customers' data and the database's password.
    """
    from metering_pipeline.backup import back_up

    with step(console, f"Backup into {folder}") as say:
        made = back_up(settings.load(), folder)
        say(f"the database, and {len(made.files):,} files of {made.size:,} bytes")
    if made.landing_root is not None:
        console.print(
            f"Not in it: the landing root {made.landing_root}, which is not in the home. Keep its files.",
            soft_wrap=True,
        )


@db.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def restore(folder: Path) -> None:
    """Make the home of the backup in FOLDER, after checking that it is whole. Nothing is overwritten.

    Issuing is stopped in it, since documents that were issued after the backup are unknown to it: see
    docs/runbooks/restore.md.
    """
    from metering_pipeline.backup import restore as bring_back

    configured = settings.load()
    with step(console, f"{folder} restored to {configured.home}"):
        made = bring_back(configured, folder)
    console.print(
        f"The home is as it was at {made.made_at}. No invoice is issued until issuing is resumed: go on with "
        "docs/runbooks/restore.md.",
        soft_wrap=True,
    )
