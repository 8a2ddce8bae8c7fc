"""What is kept of the parsed project is used only for the project that it was made of."""

import json
import shutil
from pathlib import Path

import pytest

from metering_pipeline.transform import dbt
from tests.dbt.conftest import Manifest


@pytest.fixture
def home(
    parsed_project: tuple[Manifest, tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A home in which the project was parsed by another process."""
    shutil.copytree(dbt.target_folder(), tmp_path / "dbt")
    monkeypatch.setenv("METERING_HOME", str(tmp_path))
    monkeypatch.setattr(dbt, "_parsed", {})
    return tmp_path


@pytest.mark.parametrize("written_of", ["this project", "another"])
def test_only_the_manifest_of_another_project_is_written_anew(home: Path, written_of: str) -> None:
    manifest, digest = home / "dbt" / "manifest.json", home / "dbt" / dbt.WRITTEN_OF
    assert digest.read_text() == dbt.project_digest()
    manifest.write_text("{}")
    if written_of == "another":
        digest.write_text("of another project")
    dbt.dbt_thread.submit(dbt._parse, "metering").result()
    assert ("nodes" in json.loads(manifest.read_text())) == (written_of == "another")
    assert digest.read_text() == dbt.project_digest()


def test_what_is_kept_serves_whatever_server_is_asked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dbt writes what it keeps only where it had to parse."""
    kept = home / "dbt" / "partial_parse.msgpack"
    before = kept.stat().st_mtime_ns
    for name, value in (("HOST", "db.example.com"), ("PORT", "6543"), ("USER", "pipeline")):
        monkeypatch.setenv(f"DBT_POSTGRES_{name}", value)
    dbt.dbt_thread.submit(dbt._parse, "metering").result()
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["models/model.sql", "models/model.yml", "seeds/seed.csv"])
def test_whatever_changes_in_the_project_changes_its_digest(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbt, "PROJECT_FOLDER", tmp_path)
    path = tmp_path / name
    path.parent.mkdir()
    seen = {dbt.project_digest.__wrapped__()}
    for content in ("a", "b"):
        path.write_text(content)
        seen.add(dbt.project_digest.__wrapped__())
    path.rename(path.with_stem("renamed"))
    seen.add(dbt.project_digest.__wrapped__())
    assert len(seen) == 4
