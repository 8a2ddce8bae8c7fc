"""What the reference pages say, made from the code each time the site is built: nothing is written down twice.

A page asks for it by a comment, ``<!-- from code: tables ledger -->``; each function gives Markdown.
"""

import ast
import inspect
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

import click

from metering_pipeline.cli import cli
from metering_pipeline.settings import CHOICES, PREFIX, Settings
from metering_pipeline.transform.dbt import dbt_project
from metering_pipeline.transform.lineage import described, tables_of

UNITS = ("hours", "minutes", "days", "percent")
KINDS = {"seed": "table", "source": "table", "table_function": "function", "view": "view"}


def settings() -> str:
    """Every setting: its variable, its default with the unit, and why."""
    why = _field_texts(Settings)
    rows = [
        (f"`{PREFIX}{each.name.upper()}`", _default(each.name, each.default), why[each.name])
        for each in fields(Settings)
    ]
    return _table(("setting", "default", "what it is, and what moving it does"), rows)


def _field_texts(settings: type) -> Mapping[str, str]:
    """The text below each field, by the field's name."""
    body = ast.parse(inspect.getsource(settings)).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: ast.literal_eval(text.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
    }


def _default(name: str, value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, datetime):
        return f"`{value:%Y-%m-%dT%H}`"
    unit = name.rpartition("_")[2]
    others = "".join(f", or `{each}`" for each in CHOICES.get(name, ()) if each != value)
    return f"`{value}`" + (f" {unit}" if unit in UNITS else "") + others


def commands() -> str:
    """Every command with its help, as the command line gives it."""
    return "\n".join(
        f"## {name}\n\n```text\n{text}\n```\n" for name, text in _helps(cli, "metering")
    )


def _helps(
    command: click.Command, name: str, above: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    context = click.Context(command, above, name.split()[-1], terminal_width=100)
    if isinstance(command, click.Group):
        for each in sorted(command.commands):
            yield from _helps(command.commands[each], f"{name} {each}", context)
    else:
        yield name, command.get_help(context)


def tables(schema: str) -> str:
    """Every table, view and function of a schema: what it is, its grain, its columns."""
    known = tables_of(json.loads(dbt_project().manifest_path.read_bytes()))
    keys = sorted((key for key in known if key[0] == schema), key=lambda key: _name(known[key]))
    return "\n".join(_relation(schema, known[key], described(known, key)) for key in keys)


def dbt_docs() -> str:
    """A link to dbt's own page, which is no page of ours that Markdown could link to."""
    return '<a href="../../dbt.html">dbt\'s documentation</a>'


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("alias") or node["name"])


def _relation(schema: str, node: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    materialized = node["config"].get("materialized", node["resource_type"])
    meta = node["config"]["meta"]
    grain = ", ".join(f"`{each}`" for each in meta["grain"]) or "(one row)"
    parts = [
        f"## {schema}.{_name(node)}",
        _text(node["description"]),
        f"{KINDS.get(materialized, 'table').capitalize()}, key: {grain}",
    ]
    if arguments := meta.get("arguments"):
        parts.append(_columns("argument", arguments))
    typed = [
        {"name": name, "data_type": node["columns"][name]["data_type"], "description": text}
        for name, text in columns.items()
    ]
    parts.append(_columns("column", typed))
    return "\n\n".join(parts) + "\n"


def _columns(head: str, columns: list[Mapping[str, Any]]) -> str:
    rows = [(f"`{each['name']}`", each["data_type"], each["description"]) for each in columns]
    return _table((head, "type", "is"), rows)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *([_cell(each) for each in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """A text of the code as Markdown of one paragraph; what looks like HTML is none."""
    return " ".join(text.split()).replace("``", "`").replace("<", "&lt;")
