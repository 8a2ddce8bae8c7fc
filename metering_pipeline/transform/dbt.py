"""Running dbt: one call, in this process or through dagster-dbt's own resource.

A dbt start costs ten seconds, most of it imports and parsing; a process that stays alive pays them
once. dbt is global to its process, so calls are made one at a time.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dagster_dbt import DbtCliResource, DbtProject

from metering_pipeline import settings
from metering_pipeline.errors import MeteringError, without_rows
from metering_pipeline.partitions import Window
from metering_pipeline.postgres import Database, database_name
from metering_pipeline.settings import PROJECT_ROOT

PROJECT_FOLDER = PROJECT_ROOT / "dbt_project"
OFFLINE = {"DO_NOT_TRACK": "1", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
NOWHERE = {
    "DBT_POSTGRES_HOST": "127.0.0.1",
    "DBT_POSTGRES_PORT": "5432",
    "DBT_POSTGRES_USER": "metering",
}
"""The server that parsing is told of, and does not ask. Told of another one than the last time dbt takes nothing of
what it has kept of the parsed project: 2.4 s of CPU in place of 0.4."""

WRITTEN_OF = "manifest.sha256"
"""The file beside the manifest that says of which project it was written."""

_parsed: dict[tuple[Path, str], Any] = {}
"""dbt's parsed project by target folder and database: parsing needs the database's name only."""

dbt_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dbt")
"""dbt is global to its process: one call at a time. And it looks at its whole call stack, many times a
call: in a thread of its own that stack is short, which halves what a call costs."""


class DbtError(MeteringError):
    """A model, seed or test that could not run; the message names it and says what PostgreSQL said."""


@dataclass(frozen=True)
class NodeResult:
    """What became of one node: status as dbt names it, time in seconds, failing rows of a test."""

    unique_id: str
    status: str
    message: str
    seconds: float
    failures: int | None

    @property
    def is_test(self) -> bool:
        return self.unique_id.startswith("test.")

    @property
    def broke(self) -> bool:
        """Could not run (a test that ran and found rows is no breakage)."""
        return self.status in ("error", "runtime error", "skipped", "partial success")


def target_folder() -> Path:
    """Where dbt writes: in the home, since what it keeps there depends on the home's database."""
    return settings.load().home.resolve() / "dbt"


@cache
def dbt_project() -> DbtProject:
    """The dbt project with an up-to-date manifest. Parsing needs no database."""
    target = target_folder()
    project = DbtProject(
        project_dir=PROJECT_FOLDER, profiles_dir=PROJECT_FOLDER, target_path=target
    )
    if not _manifest_stands():
        target.mkdir(parents=True, exist_ok=True)
        dbt_thread.submit(_parse, database_name(settings.load())).result()
    return project


def _manifest_stands() -> bool:
    """Whether the home's manifest was written of the project as it is. Times would not tell: an image that is newer than
    the home may bring files that are older.
    """
    target = target_folder()
    written_of = target / WRITTEN_OF
    return (
        (target / "manifest.json").exists()
        and written_of.exists()
        and written_of.read_text() == project_digest()
    )


@cache
def project_digest() -> str:
    """SHA-256 over dbt's version and the names and contents of the project's files, in hex."""
    kinds = (".sql", ".yml", ".csv", ".md")
    paths = (path for path in PROJECT_FOLDER.rglob("*") if path.suffix in kinds)
    return _digest(paths, metadata.version("dbt-core"))


def seeds_digest() -> str:
    """SHA-256 over the names and contents of the seeds, in hex."""
    return _digest((PROJECT_FOLDER / "seeds").glob("*.csv"))


def _digest(paths: Iterable[Path], beginning: str = "") -> str:
    digest = hashlib.sha256(beginning.encode())
    for path in sorted(paths):
        name = path.relative_to(PROJECT_FOLDER).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def run_dbt(
    database: Database, command: str, nodes: Sequence[str], window: Window | None = None
) -> list[NodeResult]:
    """Run a dbt command (run, build, …, with options) on the named nodes; the results in dbt's order.

    Raises DbtError if a node could not run. Failing tests are results, not errors.
    """
    arguments = [*command.split(), "--select", " ".join(nodes)]
    if "build" in arguments:  # of the tests, those whose parents are built by now
        arguments += ["--indirect-selection", "buildable"]
    if window is not None:
        arguments += ["--event-time-start", _flag(window.start)]
        arguments += ["--event-time-end", _flag(window.end)]
    results = dbt_thread.submit(_run, database.dbt_environment(), arguments).result()
    broken = [result for result in results if result.broke]
    if broken:
        raise DbtError(
            "\n".join(f"{each.unique_id}: {each.status}: {each.message}" for each in broken)
        )
    return results


def compiled_models(database: Database, models: Sequence[str], window: Window) -> list[str]:
    """The models' SQL for a window, in the order in which they were named; nothing is run. Raises DbtError."""
    texts = _compiled(database, ["--select", " ".join(models)], window)
    return [texts[model.rpartition(".")[2]] for model in models]


def compiled_text(database: Database, text: str, window: Window) -> str:
    """A text of the project's own Jinja, such as the call of a macro, as SQL for a window. Raises DbtError."""
    return _compiled(database, ["--inline", text], window)["inline_query"]


def _compiled(database: Database, selection: Sequence[str], window: Window) -> dict[str, str]:
    # dbt compile does not know the flags for event time
    edges = {"event_time_start": str(window.start)[:19], "event_time_end": str(window.end)[:19]}
    arguments = ["compile", *selection, "--vars", json.dumps(edges)]

    def compile_in_process() -> dict[str, str]:
        with _environment({**OFFLINE, **database.dbt_environment()}):
            results = _invoke(arguments)
        return {each.node.name: str(each.node.compiled_code) for each in results}

    return dbt_thread.submit(compile_in_process).result()


def _run(connection: Mapping[str, str], arguments: list[str]) -> list[NodeResult]:
    with _environment({**OFFLINE, **connection}):
        in_process = settings.load().dbt_mode == "inprocess"
        return _in_process(arguments) if in_process else _by_resource(arguments)


def _flag(instant: Any) -> str:
    return str(instant.strftime("%Y-%m-%dT%H:%M:%S"))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _parse(name: str) -> Any:
    """The project as dbt parses it for a database of that name, kept for the process's life."""
    from dbt.cli.main import dbtRunner  # four seconds: paid only where dbt runs

    key = (target_folder(), name)
    if key not in _parsed:
        _spare_what_nobody_sees()
        # a third of what parsing costs where nothing has changed is to write the manifest once more
        write = [] if _manifest_stands() else ["--write-json"]
        with _environment({**OFFLINE, **NOWHERE, "DBT_POSTGRES_NAME": name}):
            parsed = dbtRunner().invoke(["--quiet", "--no-write-json", *write, "parse", *_places()])
        if not parsed.success:
            raise DbtError(f"the dbt project does not parse: {parsed.exception}")
        if write:
            (target_folder() / WRITTEN_OF).write_text(project_digest())
        _parsed[key] = parsed.result
    return _parsed[key]


@cache
def _spare_what_nobody_sees() -> None:
    """What dbt does at each call, or many times a call, for nobody: half of the CPU of a call that does little.

    It looks for plugins through everything that can be imported; these do not change. It asks which module made each
    flag of its adapter, through the call stack and all loaded modules, for a message that is not shown. And it makes
    events, several a statement, that neither a log nor a caller takes; only warnings can become errors.
    """
    from dbt.plugins.manager import PluginManager
    from dbt_common.behavior_flags import BehaviorFlagRendered
    from dbt_common.events.base_types import BaseEvent, EventLevel
    from dbt_common.events.event_manager import EventManager

    PluginManager.get_prefixed_modules = cache(PluginManager.get_prefixed_modules)  # type: ignore[method-assign]
    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt")  # type: ignore[method-assign]
    fire = EventManager.fire_event

    def fire_for_somebody(
        self: EventManager,
        e: BaseEvent,
        level: EventLevel | None = None,
        *others: Any,
        **named: Any,
    ) -> None:
        warns = EventLevel.WARN in (level, e.level_tag())
        if self.loggers or self.callbacks or warns or named.get("force_warn_or_error_handling"):
            fire(self, e, level, *others, **named)

    EventManager.fire_event = fire_for_somebody  # type: ignore[method-assign]


def write_docs() -> Path:
    """dbt's own page of the project, models, tests and macros with their SQL: one file, made without a database."""
    return dbt_thread.submit(_write_docs).result()


def _write_docs() -> Path:
    from dbt.cli.main import dbtRunner

    manifest = _parse(database_name(settings.load()))
    options = ["--static", "--empty-catalog", "--no-compile"]
    with _environment(OFFLINE):
        done = dbtRunner(manifest=manifest).invoke(
            ["--quiet", "docs", "generate", *options, *_places()]
        )
    if not done.success:
        raise DbtError(f"dbt docs generate: {done.exception}")
    return target_folder() / "static_index.html"


def _places() -> list[str]:
    target = target_folder()
    return [
        "--project-dir", str(PROJECT_FOLDER),
        "--profiles-dir", str(PROJECT_FOLDER),
        "--target-path", str(target),
        "--log-path", str(target / "logs"),
    ]  # fmt: skip


def _invoke(arguments: Sequence[str]) -> Sequence[Any]:
    """What dbt's own runner gives, a result a node."""
    from dbt.artifacts.schemas.run import RunExecutionResult
    from dbt.cli.main import dbtRunner

    manifest = _parse(os.environ["DBT_POSTGRES_NAME"])
    options = ["--no-write-json", "--log-level-file", "none"]
    # its own log would quote the rows of PostgreSQL's errors; what went wrong is in the results
    done = dbtRunner(manifest=manifest).invoke(
        ["--log-level", "none", *arguments, *_places(), *options]
    )
    if done.exception is not None or not isinstance(done.result, RunExecutionResult):
        problem = without_rows(str(done.exception or "no results"))
        raise DbtError(f"dbt {' '.join(arguments)}: {problem}")
    results: Sequence[Any] = done.result.results
    return results


def _in_process(arguments: Sequence[str]) -> list[NodeResult]:
    return [
        NodeResult(
            unique_id=each.node.unique_id,
            status=str(each.status),
            message=without_rows(each.message or ""),
            seconds=each.execution_time,
            failures=each.failures,
        )
        for each in _invoke(arguments)
    ]


def _by_resource(arguments: Sequence[str]) -> list[NodeResult]:
    project = dbt_project()
    written = project.target_path / "run_results.json"
    # Else a call that fails early would show the last one's results.
    written.unlink(missing_ok=True)
    resource = DbtCliResource(
        project_dir=project,
        profiles_dir=str(project.profiles_dir),
        dbt_executable=str(
            Path(sys.executable).parent / "dbt"
        ),  # the environment may not be active
    )
    # neither its log nor its results stay: they would quote the rows of PostgreSQL's errors
    invocation = resource.cli(
        [*arguments, "--log-level-file", "none"],
        raise_on_error=False,
        target_path=project.target_path,
    )
    invocation.wait()
    if not written.exists():
        problem = without_rows(str(invocation.get_error()))
        raise DbtError(f"dbt {' '.join(arguments)}: {problem}")
    results = json.loads(written.read_text())["results"]
    written.unlink()
    return [
        NodeResult(
            unique_id=each["unique_id"],
            status=each["status"],
            message=without_rows(each["message"] or ""),
            seconds=each["execution_time"],
            failures=each["failures"],
        )
        for each in results
    ]
