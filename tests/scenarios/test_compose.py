"""docker-compose.yml without Docker: Compose itself reads it, and each service's command is started here, on the
loopback address, and asked by its own health check."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from metering_pipeline.embedded_server import SERVER_SETTINGS, EmbeddedServer, ServerAddress
from metering_pipeline.settings import PROJECT_ROOT
from tests.browser.test_ui import free_port
from tests.postgres.test_landing_s3 import KEY, Bucket, bucket, server_address

__all__ = ["bucket", "server_address"]  # fixtures

PROGRAMS = Path(sys.executable).parent
S3 = ("docker-compose.yml", "docker-compose.s3.yml")
PASSWORDS = {
    "POSTGRES_PASSWORD": "owners-secret",
    "PIPELINE_PASSWORD": "pipelines-secret",
    "METRICS_PASSWORD": "metrics-secret",
}
LONG_RUNNING = {"postgres", "code-location", "webserver", "daemon", "metrics"}
HEALTHY_SECONDS = 120


def compose(*files: str, **environment: str) -> subprocess.CompletedProcess[str]:
    arguments = [word for file in files or ("docker-compose.yml",) for word in ("-f", file)]
    return subprocess.run(
        [PROGRAMS / "docker-compose", "--env-file", os.devnull, *arguments, "config", "--format", "json"],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
    )  # fmt: skip


def composed(*files: str, **environment: str) -> Mapping[str, Any]:
    """The configuration as Compose reads it, with the passwords."""
    done = compose(*files, **{**PASSWORDS, **environment})
    assert done.returncode == 0, done.stderr
    read: Mapping[str, Any] = json.loads(done.stdout.replace("$$", "$"))
    return read


@pytest.mark.parametrize("missing", PASSWORDS)
def test_there_is_no_default_password(missing: str) -> None:
    unset = {name: word for name, word in PASSWORDS.items() if name != missing}
    for given in (unset, {**unset, missing: ""}):
        refused = compose(**given)
        assert refused.returncode != 0
        assert f"required variable {missing} is missing a value: set a password" in refused.stderr


def test_what_runs_is_watched_restarted_and_bounded() -> None:
    services = composed()["services"]
    assert {name for name in services if "healthcheck" in services[name]} == LONG_RUNNING
    for name, service in services.items():
        assert service["logging"]["options"]["max-size"], name
        assert service["restart"] == ("unless-stopped" if name in LONG_RUNNING else "no"), name
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}, name
        if name != "postgres":
            reached = "0.0.0.0" in service["command"]  # noqa: S104  (of its container)
            assert reached or "ports" not in service, "inside a container loopback is not published"
            assert service["cap_drop"] == ["ALL"], name
            owner = PASSWORDS["POSTGRES_PASSWORD"] in json.dumps(service)
            assert owner == (name == "schema"), "only the schema is brought up as the owner"
    read = json.dumps(services["metrics"])
    assert (PASSWORDS["METRICS_PASSWORD"] in read, PASSWORDS["PIPELINE_PASSWORD"] in read) == (True, False)  # fmt: skip
    assert services["metrics"].get("volumes", []) == []


def server_settings(service: Mapping[str, Any]) -> dict[str, str]:
    """What the command gives PostgreSQL, by name."""
    program, *words = service["command"]
    assert (program, set(words[::2])) == ("postgres", {"-c"})
    return dict(word.split("=", 1) for word in words[1::2])


def test_the_server_is_set_as_the_embedded_one() -> None:
    given = server_settings(composed()["services"]["postgres"])
    of_the_place = ("listen_addresses", "unix_socket_directories", "max_connections")
    wanted = {name: value for name, value in SERVER_SETTINGS.items() if name not in of_the_place}
    assert given == {**wanted, "shared_buffers": "1GB"}


def test_settings_of_the_pipeline_reach_every_service(tmp_path: Path) -> None:
    shutil.copy(PROJECT_ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / "metering.env").write_text("METERING_APPROVAL=required\n")
    services = composed(str(tmp_path / "docker-compose.yml"))["services"]
    told = {
        name for name in services if "METERING_APPROVAL" in (services[name]["environment"] or {})
    }
    assert told == {*LONG_RUNNING, "schema"} - {"postgres"}


def test_an_object_store_in_the_place_of_the_directory(bucket: Bucket) -> None:
    """With the environment of the override alone, the landing root is listed."""
    bucket.put(KEY, b"{}")
    keys = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret"}
    service = composed(*S3, LANDING_URL=bucket.root, **keys)["services"]["code-location"]
    assert [each["target"] for each in service["volumes"]] == ["/app/storage"]
    given = {name: value for name, value in service["environment"].items() if value is not None}
    assert given.keys() >= keys.keys()
    script = (
        "from metering_pipeline import settings; from metering_pipeline.landing.sources import Source;"
        "print([file.key for files in Source(settings.load().landing_root).list_all().files.values()"
        " for file in files])"
    )
    listed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=given, check=True
    )
    assert listed.stdout.strip() == str([KEY])
    refused = compose(*S3, **PASSWORDS)
    assert "required variable LANDING_URL is missing a value: set it to s3://" in refused.stderr


def compose_lines() -> list[list[str]]:
    """The arguments of each `docker compose …` line of the docs."""
    pages = [PROJECT_ROOT / "README.md", *(PROJECT_ROOT / "docs").rglob("*.md")]
    lines = [
        line.strip()
        for page in pages
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
    ]
    return [line.split()[2:] for line in lines if line.startswith("docker compose ")]


def commands_in_containers() -> list[tuple[str, str]]:
    """Service and command of those lines that are no `metering …`, which other tests run."""
    executed = [words[1:] for words in compose_lines() if words[0] == "exec"]
    named = [words[words[0] == "-T" :] for words in executed]
    return [(name, " ".join(words)) for name, *words in named if words[0] != "metering"]


def test_what_the_docs_say_to_compose_exists() -> None:
    services = composed()["services"]
    lines = compose_lines()
    assert {words[0] for words in lines} == {"up", "exec", "stop", "build", "-f"}
    for words in lines:
        while words[0] == "-f":
            assert (PROJECT_ROOT / words[1]).exists()
            words = words[2:]
        said = subprocess.run(
            [PROGRAMS / "docker-compose", words[0], "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        options = [each for each in words[1:] if each.startswith("-")]
        if words[0] == "exec":
            options = options[: words[1] == "-T"]
            assert words[1 + len(options)] in services
        else:
            assert {each for each in words[1:] if each not in options} <= services.keys()
        for option in options:
            assert re.search(rf"{option}\b", said), words


@dataclass
class Machine:
    """A folder and ports that stand for the containers' own; and what runs on them."""

    folder: Path
    address: ServerAddress
    services: Mapping[str, Any]
    ports: Mapping[str, int]
    programs: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def here(self, text: str) -> str:
        """What the file says of hosts, ports and folders, as it is here."""
        for there, here in {
            r"@postgres:5432": f"@127.0.0.1:{self.address.port}",
            r"\b0\.0\.0\.0\b": "127.0.0.1",
            r"host: code-location": "host: 127.0.0.1",
            r"(?<![\w/])/(app|landing)\b": rf"{self.folder}/\1",
            **{rf"\b{port}\b": str(mine) for port, mine in self.ports.items()},
        }.items():
            text = re.sub(there, here, text)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """That of the image, of the service, and of this machine."""
        image = (PROJECT_ROOT / "Dockerfile").read_text()
        (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)", image, re.MULTILINE)
        given = {**dict(re.findall(r"(\w+)=(\S+)", block)), **self.services[name]["environment"]}
        path = f"{PROGRAMS}:{self.programs}:{os.environ['PATH']}"
        of_clients = {"PGPORT": str(self.address.port), "PGPASSWORD": self.address.password}
        return {
            "PATH": path,
            "PGHOST": "127.0.0.1",
            **of_clients,
            **{variable: self.here(value) for variable, value in given.items()},
        }

    def call(self, name: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """A command in the service's container, to its end."""
        return subprocess.run(
            [self.here(word) for word in words],
            env=self.environment(name),
            cwd=self.folder / "app",
            capture_output=True,
            text=True,
            timeout=HEALTHY_SECONDS,
            check=False,
        )

    def start(self, *names: str) -> None:
        """The services' own commands, left running."""
        for name in names:
            with (self.folder / f"{name}.log").open("wb") as output:
                process = subprocess.Popen(
                    [self.here(word) for word in self.services[name]["command"]],
                    env=self.environment(name),
                    cwd=self.folder / "app",
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.running.append(process)

    def healthy(self, name: str) -> bool:
        kind, *words = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.call(name, words).returncode == 0

    def wait_for(self, *names: str) -> None:
        """Until the services' own health checks pass."""
        deadline = time.monotonic() + HEALTHY_SECONDS
        for name in names:
            while not self.healthy(name):
                said = (self.folder / f"{name}.log").read_text()[-2000:]
                assert all(process.poll() is None for process in self.running), said
                assert time.monotonic() < deadline, said
                time.sleep(0.5)

    def end(self) -> None:
        """As ``docker compose down``: asked to end, the last started first, then killed."""
        for process in reversed(self.running):
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for each in family:
                if each.is_running():
                    each.kill()


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A server set as the file says, to which the image's own set-up was done: a database, and the logins."""
    folder = Path(tempfile.mkdtemp(prefix="metering-compose-"))
    folder.chmod(0o755)
    small = {"POSTGRES_SHARED_BUFFERS": "64MB"}
    given = server_settings(composed(**small)["services"]["postgres"])
    server = EmbeddedServer(folder / "postgres-home", {**given, "fsync": "off"})
    try:
        address = server.start()
        read = composed(POSTGRES_PASSWORD=address.password)
        ports = {"3000": free_port(), "4000": free_port(), "9464": free_port()}
        machine = Machine(folder, address, read["services"], ports, server.programs)
        for name in ("app/home", "app/storage", "landing"):
            (folder / name).mkdir(parents=True)
        shutil.copy(PROJECT_ROOT / "dagster.yaml", folder / "app")
        workspace = machine.here(read["configs"]["workspace"]["content"])
        (folder / "app" / "compose-workspace.yaml").write_text(workspace)
        with psycopg.connect(address.url("postgres"), autocommit=True) as connection:
            connection.execute("create database metering")
        made = machine.call("postgres", ["bash", "-c", read["configs"]["logins"]["content"]])
        assert made.returncode == 0, made.stderr
        try:
            yield machine
        finally:
            machine.end()
    finally:
        server.stop()
        shutil.rmtree(folder)


def test_each_service_runs_and_is_healthy_by_its_own_check(machine: Machine) -> None:
    assert machine.healthy("postgres")
    assert not any(map(machine.healthy, ("code-location", "webserver", "daemon", "metrics")))
    early = machine.call("code-location", ["metering", "status"])
    assert "this login does not own it. Bring it up with the owner's" in early.stderr
    brought_up = machine.call("schema", machine.services["schema"]["command"])
    assert brought_up.returncode == 0, brought_up.stderr
    assert "its schema is up to date" in brought_up.stdout

    machine.start("code-location", "metrics")
    machine.wait_for("code-location", "metrics")
    machine.start("webserver", "daemon")
    machine.wait_for("webserver", "daemon")
    status = machine.call("code-location", ["metering", "status"])
    assert status.returncode == 0, status.stderr

    query = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"
    page = http.client.HTTPConnection("127.0.0.1", machine.ports["3000"], timeout=60)
    body = json.dumps({"query": query})
    page.request("POST", "/graphql", body, {"Content-Type": "application/json"})
    (location,) = json.load(page.getresponse())["data"]["workspaceOrError"]["locationEntries"]
    page.close()
    assert location == {
        "name": "metering_pipeline",
        "locationOrLoadError": {"__typename": "RepositoryLocation"},
    }
    with psycopg.connect(machine.address.url("dagster")) as connection:
        owner = "select distinct tableowner from pg_tables where schemaname = 'public'"
        assert connection.execute(owner).fetchall() == [("pipeline",)]
    login = machine.environment("metrics")["METERING_DATABASE_URL"]
    with psycopg.connect(login) as connection:
        assert connection.execute("select count(*) from invoices.issued_invoices").fetchone()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("insert into ledger.pending values (now(), 'acme', 'x', now())")
    for name, command in commands_in_containers():
        done = machine.call(name, ["bash", "-euo", "pipefail", "-c", command])
        assert done.returncode == 0, (command, done.stderr)
    assert (machine.folder / "app" / "2026-02-06.tar.gz").stat().st_size > 1 << 20


def test_a_code_location_that_does_not_load_ends(machine: Machine) -> None:
    command = machine.services["code-location"]["command"]
    broken = [
        word.replace("metering_pipeline.definitions", "metering_pipeline") for word in command
    ]
    ended = machine.call("code-location", broken)
    assert ended.returncode != 0
