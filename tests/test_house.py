"""The house's own law: one vocabulary, everything described, nothing that belongs to one machine."""

import ast
import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from metering_pipeline.postgres import (
    LANDED_LOCK,
    LEDGER_LOCK,
    PIPELINE_LOCKS,
    ROLLUPS_LOCK,
    Database,
)
from metering_pipeline.settings import PROJECT_ROOT

if TYPE_CHECKING:
    import dagster as dg

STAGES = ["landing", "ledger", "rollups", "rating", "invoices", "reconciliation"]
BESIDE = {"staging", "catalog"}
PACKAGE = PROJECT_ROOT / "metering_pipeline"
MODELS = PROJECT_ROOT / "dbt_project" / "models"
SCHEMA_FILES = sorted((PACKAGE / "schema").glob("*.sql"))
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(PROJECT_ROOT)) for path in paths]


# One vocabulary


def test_readme_names_the_stages_in_order() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text()
    assert re.findall(r"^\| \[(\w+)\]\(", readme, re.MULTILINE) == STAGES


def test_schemas_are_the_stages() -> None:
    statements = "".join(path.read_text() for path in SCHEMA_FILES)
    schemas = re.findall(r"^create schema (?:if not exists )?(\w+);", statements, re.MULTILINE)
    assert schemas[: len(STAGES)] == STAGES
    assert set(schemas[len(STAGES) :]) == BESIDE


def test_dbt_folders_are_the_stages() -> None:
    assert {path.name for path in MODELS.iterdir() if path.is_dir()} == {*STAGES} | BESIDE


def test_packages_are_stages() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    # cli is for people; transform runs dbt, for the stages that dbt owns; watch looks at all of them
    assert packages - {"cli", "transform", "watch"} <= {*STAGES}


def test_groups_and_keys_are_the_stages(nodes: "Mapping[dg.AssetKey, Any]") -> None:
    assert {node.group_name for node in nodes.values()} == {*STAGES, "catalog"}
    assert {key.path[0] for key in nodes} == {*STAGES} | BESIDE
    for key, node in nodes.items():
        assert node.group_name == key.path[0].replace("staging", "catalog"), key


def test_locks_in_one_order() -> None:
    """Everywhere the same numbers, that of what has landed before the pipeline's: else two would wait for each other."""
    macros = (PROJECT_ROOT / "dbt_project" / "macros" / "posting.sql").read_text()
    locks = {"landed_lock": LANDED_LOCK, "ledger_lock": LEDGER_LOCK, "rollups_lock": ROLLUPS_LOCK}
    for name, number in locks.items():
        assert re.findall(rf"macro {name}\(\) %\}}(\d+)\{{%", macros) == [str(number)]
    both = re.search(r"macro wait_for_pipeline\(\).*?endmacro", macros, re.DOTALL)
    assert both is not None
    assert re.findall(r"wait_for\((\w+)\(\)\)", both[0]) == ["ledger_lock", "rollups_lock"]
    assert PIPELINE_LOCKS == (LEDGER_LOCK, ROLLUPS_LOCK)
    taken = [re.findall(r"advisory_xact_lock\((\d+)\)", path.read_text()) for path in SCHEMA_FILES]
    in_order = (LANDED_LOCK, *PIPELINE_LOCKS)
    assert {(*map(int, numbers),) for numbers in taken if numbers} == {in_order}


def test_only_the_rollups_are_written_beside_the_ledger() -> None:
    """Whoever waits for one lock only: a posting of the ledger, and those models whose debt it owes."""
    waiting = {
        path.stem: re.findall(r"wait_for\((\w+)\(\)\)", path.read_text())
        for path in (PROJECT_ROOT / "dbt_project" / "models").rglob("*.sql")
    }
    assert {name: locks for name, locks in waiting.items() if locks} == {
        "usage_events": ["ledger_lock"],
        "usage_contributions": ["rollups_lock"],
        "usage_hourly": ["rollups_lock"],
        "usage_daily": ["rollups_lock"],
    }


def test_each_advisory_lock_has_its_number() -> None:
    """Else who looks at the pipeline would wait for who lands, and the other way round."""
    numbers = [
        (path.name, number)
        for path in PACKAGE.rglob("*.py")
        for number in re.findall(r"^\w+_LOCK = (\d+)$", path.read_text(), re.MULTILINE)
    ]
    assert {name for name, _ in numbers} == {"postgres.py"}
    assert len({number for _, number in numbers}) == len(numbers) >= 3


# No archived day is read as an empty one

STATEMENTS = sorted(path for folder in (PACKAGE, PROJECT_ROOT / "dbt_project") for path in folder.rglob("*.sql"))  # fmt: skip
READS_EVENTS = re.compile(
    r"(?:from|join|using|update) ledger\.usage_events|ledger\.\{\{ table \}\}|ref\('usage_events'\)"
    r"|standing_events\(|all_copies\(|ledger_keys\("
)
GUARD = re.compile(r"ledger\.require_(?:days|span)\(|ledger_has_span\(\)")
KEPT_HOURS = "reads landing hours that are kept, of whose records no event is archived"
UNGUARDED = {
    "dbt_project/macros/explaining.sql": "a part of models that are readers themselves",
    "dbt_project/macros/metric_events.sql": "a part of models that are readers themselves",
    "dbt_project/models/ledger/usage_events.sql": "its days are made before, which is refused of archived ones",
    "dbt_project/models/reconciliation/copies_to_ledger.sql": KEPT_HOURS,
    "dbt_project/models/reconciliation/landing_to_ledger.sql": KEPT_HOURS,
    "dbt_project/models/reconciliation/ledger_to_rollups.sql": "leaves out the hours of archived events",
    "dbt_project/tests/assert_every_copy_has_its_owner.sql": "leaves out archived days",
    "metering_pipeline/invoices/sql/holds_law_failed.sql": KEPT_HOURS,
    "metering_pipeline/reconciliation/sql/L1.sql": KEPT_HOURS,
    "metering_pipeline/reconciliation/sql/L2.sql": KEPT_HOURS,
    "metering_pipeline/reconciliation/sql/L3.sql": KEPT_HOURS,
    "metering_pipeline/reconciliation/sql/L4.sql": "leaves out lines that archived events tell of",
    "metering_pipeline/reconciliation/sql/line_usage.sql": "what it reads is compared with pinned digests",
    "metering_pipeline/reconciliation/sql/proof_landed_days.sql": KEPT_HOURS,
    "metering_pipeline/reconciliation/sql/rebuild_landed_days_of.sql": "asked of days that are kept",
    "metering_pipeline/reconciliation/sql/rebuild_schema.sql": "read for days that are kept",
    "metering_pipeline/reconciliation/sql/repair_delete.sql": "changes rows of days that are kept",
    "metering_pipeline/reconciliation/sql/repair_pending.sql": "reads rows of days that are kept",
}
"""What reads the ledger's events without asking for their days, and why it may."""


def test_who_reads_events_asks_for_their_days() -> None:
    code = {path: re.sub(r"--.*|\{#.*?#\}", "", path.read_text()) for path in STATEMENTS}
    readers = [path for path in STATEMENTS if READS_EVENTS.search(code[path])]
    unguarded = [path for path in readers if not GUARD.search(code[path])]
    assert names(unguarded) == [*UNGUARDED]
    in_python = [path for path in PYTHON_FILES if READS_EVENTS.search(path.read_text())]
    assert names(in_python) == ["metering_pipeline/transform/figures.py"], (
        "it leaves out archived hours"
    )


# Everything described


@pytest.mark.parametrize("stage", [*STAGES, *sorted(BESIDE)])
def test_stage_has_a_readme(stage: str) -> None:
    pages = [folder / stage / "README.md" for folder in (PACKAGE, MODELS)]
    (page,) = (page.read_text() for page in pages if page.exists())
    parts = ["**Owns**", "**Does not own**", "## Invariants", "## Timestamps"]
    assert [part for part in parts if part not in page] == []


def documented() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every model, seed and source table of the ymls, with its schema-qualified name."""
    for path in sorted((PROJECT_ROOT / "dbt_project").glob("*/**/*.yml")):
        content = yaml.safe_load(path.read_text()) or {}
        for model in content.get("models", []):
            yield f"{path.parent.name}.{model.get('config', {}).get('alias', model['name'])}", model
        for seed in content.get("seeds", []):
            yield f"staging.{seed['name']}", seed
        for source in content.get("sources", []):
            for table in source["tables"]:
                yield f"{source['schema']}.{table['name']}", table


RELATIONS = dict(documented())


def test_every_model_and_seed_is_documented() -> None:
    models = {path.stem for path in MODELS.rglob("*.sql")}
    seeds = {path.stem for path in (PROJECT_ROOT / "dbt_project" / "seeds").glob("*.csv")}
    assert models | seeds <= {relation["name"] for relation in RELATIONS.values()}


@pytest.mark.parametrize("name", RELATIONS)
def test_relation_is_described(name: str) -> None:
    relation = RELATIONS[name]
    columns = {column["name"]: column for column in relation["columns"]}
    assert relation["description"].strip()
    assert set(relation["config"]["meta"]["grain"]) <= set(columns), "the grain names columns"
    lacking = [
        each
        for each, column in columns.items()
        if not column.get("description") or not column.get("data_type")
    ]
    lacking += [
        each["name"]
        for each in relation["config"]["meta"].get("arguments", [])
        if not each.get("description") or not each.get("data_type")
    ]
    assert lacking == [], "columns or arguments without description or data_type"


def test_documented_columns_are_the_real_ones(database: Database) -> None:
    """What schema/ and dbt make has the columns, in order and type, that the ymls promise."""
    from metering_pipeline.transform.dbt import run_dbt

    made = [f"config.materialized:{kind}" for kind in ("view", "seed", "table_function")]
    run_dbt(database, "build --resource-type seed --resource-type model", made)
    with database.connect() as connection:
        rows = connection.execute(
            """
            select
                attrelid::regclass::text,
                json_agg(
                    json_build_array(attname, format_type(atttypid, null)) order by attnum
                )
            from pg_attribute
            inner join pg_class on attrelid = pg_class.oid
            where
                attnum > 0
                and not attisdropped
                and not relispartition
                and relkind in ('r', 'p', 'v')
                and relnamespace::regnamespace::text = any(%s)
            group by attrelid
            union all
            select
                format('%%s.%%s', pronamespace::regnamespace, proname),
                json_agg(
                    json_build_array(proargnames[place], format_type(type, null)) order by place
                ) filter (where proargmodes[place] = 't')
            from pg_proc
            cross join lateral unnest(proallargtypes) with ordinality as arguments (type, place)
            where pronamespace::regnamespace::text = any(%s)
            group by pg_proc.oid
            """,
            ([*STAGES, *BESIDE],) * 2,
        ).fetchall()
    real = {name: [tuple(column) for column in columns] for name, columns in rows}
    promised = {
        name: [(column["name"], column["data_type"]) for column in relation["columns"]]
        for name, relation in RELATIONS.items()
    }
    for name, columns in promised.items():
        assert real.get(name) == columns, name


def test_every_setting_says_what_it_is() -> None:
    module = ast.parse((PACKAGE / "settings.py").read_text())
    (settings,) = (
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    for field, following in zip(settings.body, [*settings.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            described = isinstance(following, ast.Expr) and isinstance(
                following.value, ast.Constant
            )
            assert described, ast.unparse(field)


def test_every_command_is_in_the_readme() -> None:
    from metering_pipeline.cli import cli

    def commands(command: click.Command, name: str) -> Iterator[str]:
        if isinstance(command, click.Group):
            for each in command.commands.values():
                yield from commands(each, f"{name} {each.name}")
        else:
            yield name

    readme = (PROJECT_ROOT / "README.md").read_text()
    assert [each for each in commands(cli, "metering") if each not in readme] == []


# Assets


@pytest.fixture(scope="module")
def nodes() -> "Mapping[dg.AssetKey, Any]":
    """Every asset of the definitions."""
    from metering_pipeline.definitions import defs

    graph = defs.resolve_asset_graph()
    return {key: graph.get(key) for key in graph.get_all_asset_keys()}


def test_every_asset_says_what_it_is(nodes: "Mapping[dg.AssetKey, Any]") -> None:
    for key, node in nodes.items():
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        columns = node.metadata["dagster/column_schema"].columns
        assert columns, key
        assert all(column.type and column.type != "?" for column in columns), key
        assert all(column.description for column in columns), key


def test_column_lineage_names_real_columns(nodes: "Mapping[dg.AssetKey, Any]") -> None:
    """Where a document's total comes from can be followed, column by column, to the event as received and the price."""
    from metering_pipeline.transform.assets import manifest
    from metering_pipeline.transform.lineage import origins_of, tables_of

    tables = tables_of(manifest())
    real = {".".join((*key, name)) for key, table in tables.items() for name in table["columns"]}
    shown = {".".join(key.path) for key in nodes}
    origins = {
        ".".join((*key, column)): set(those)
        for key in tables
        for column, those in origins_of(tables, key).items()
    }
    named = {*origins, *itertools.chain(*origins.values())}
    assert [each for each in named if each not in real] == []
    assert [each for each in named if each.rpartition(".")[0] not in shown] == []

    found, unexplored = set[str](), {"invoices.issued_invoices.total"}
    while unexplored:
        found |= unexplored
        unexplored = set().union(*(origins.get(each, set()) for each in unexplored)) - found
    assert {"landing.usage_events.quantity", "catalog.charge_tiers.unit_amount"} <= found


def test_at_most_four_assets_have_hourly_partitions(nodes: "Mapping[dg.AssetKey, Any]") -> None:
    """Each of them costs Dagster two events an hour and asset."""
    import dagster as dg

    hourly = [
        key
        for key, node in nodes.items()
        if isinstance(node.partitions_def, dg.HourlyPartitionsDefinition)
    ]
    assert len(hourly) <= 4, hourly


def test_definitions_are_a_table_of_contents() -> None:
    source = (PACKAGE / "definitions.py").read_text()
    assert len(source.splitlines()) < 60
    docstring, *imports, definitions = ast.parse(source).body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(each, ast.Import | ast.ImportFrom) for each in imports)
    assert isinstance(definitions, ast.Assign)
    logic = (ast.comprehension, ast.IfExp, ast.BoolOp, ast.Lambda)
    assert not any(isinstance(each, logic) for each in ast.walk(definitions))


# SQL, and what must not be in a file

SQL = re.compile(
    r"\s*(select|insert|update|delete|with|create|alter|drop|truncate|copy|grant|lock|set)\s", re.I
)


def is_sql(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr):
        return bool(node.values) and is_sql(node.values[0])
    return isinstance(node, ast.Constant) and bool(SQL.match(str(node.value)))


def filled_in(node: ast.AST) -> bool:
    """SQL that is put together from values: an f-string, %, + or str.format."""
    match node:
        case ast.JoinedStr():
            return is_sql(node)
        case ast.BinOp(left=left, op=ast.Mod() | ast.Add()):
            return is_sql(left)
        case ast.Call(func=ast.Attribute(value=text, attr="format")):
            return is_sql(text)  # psycopg's SQL("…").format(…) quotes: its text is not the string
    return False


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sql_takes_its_values_as_parameters(path: Path) -> None:
    found = [node for node in ast.walk(ast.parse(path.read_text())) if filled_in(node)]
    assert [ast.unparse(node) for node in found] == []


@pytest.mark.parametrize(
    "code",
    [
        "connection.execute(f'select {name}')",
        "connection.execute('select %s' % name)",
        "connection.execute('select ' + name)",
        "connection.execute('select {}'.format(name))",
    ],
)
def test_the_check_of_sql_finds(code: str) -> None:
    assert any(filled_in(node) for node in ast.walk(ast.parse(code)))


def texts() -> Iterator[tuple[Path, str]]:
    """The project's own text files."""
    folders = (".ci", "benchmarks", "dbt_project", "docs", "metering_pipeline", "tests")
    made = {"__pycache__", "target", "logs"}
    paths = [path for path in PROJECT_ROOT.iterdir() if path.is_file()]
    paths += [path for folder in folders for path in (PROJECT_ROOT / folder).rglob("*")]
    for path in sorted(paths):
        if path.is_file() and not made & set(path.parts) and path.suffix != ".png":
            yield path, path.read_text()


MACHINE_PATH = re.compile(r"(?<![\w.:@~<>$}/-])/(?:home|Users|root|work|private|mnt|tmp)/\w")
PACKAGE_INDEX = re.compile(
    r"(--(extra-|default-)?index(-url)?|--find-links|--trusted-host|index-url)[ =]+\S", re.I
)


def test_no_file_names_a_machine_or_a_package_index() -> None:
    for path, text in texts():
        for number, line in enumerate(text.splitlines(), start=1):
            place = f"{path.relative_to(PROJECT_ROOT)}:{number}: {line.strip()}"
            assert not MACHINE_PATH.search(line), place
            assert not PACKAGE_INDEX.search(line), place


def test_constraints_name_versions_only() -> None:
    lines = (PROJECT_ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    pin = re.compile(r"[\w.\[\]-]+==[\w.+!]+( ; [\w .*<>=!'\"()]+)?")
    assert [line for line in pins if not pin.fullmatch(line)] == []


def test_no_package_source_but_the_default_one() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
    assert "uv" not in project["tool"]
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    assert [each for each in wanted if "@" in each or "://" in each] == []
