"""The containers: valid by the Compose specification, and agreeing with the code's commands, queues and settings."""

import re
from typing import Any

import jsonschema
import pytest
import typer.main
from check_jsonschema.builtin_schemas import get_builtin_schema

from api.settings import ApiSettings
from db.session import API_ROLE, WORKER_ROLE
from tests.architecture import compose
from tests.architecture.source import ROOT
from tests.architecture.test_queues import consumed_queues
from tests.architecture.test_settings import command_variables, field_variables
from worker import app, roles
from worker.cli import app as cli
from worker.settings import WorkerSettings

SECRETS = ("POSTGRES_PASSWORD", "API_DB_PASSWORD", "WORKER_DB_PASSWORD", "VALKEY_PASSWORD")
GIVEN = {**compose.example(), **{name: f"{name.lower()}-for-tests" for name in SECRETS}}
ROLES_AND_ONCE = (*roles.ROLES, "migrate")
OURS = (*ROLES_AND_ONCE, "tools")


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, Any]]:
    """Each way to start: on a GPU, and with the override for CPUs."""
    base = compose.load("docker-compose.yml", GIVEN)
    return {"gpu": base, "cpu": compose.merge(base, compose.load("docker-compose.cpu.yml", GIVEN))}


@pytest.fixture(scope="module")
def services(files: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = files["gpu"]["services"]
    return found


@pytest.mark.parametrize("way", ["gpu", "cpu"])
def test_the_files_obey_the_compose_specification(files: dict[str, dict[str, Any]], way: str) -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    jsonschema.validate(files[way], schema, cls=jsonschema.validators.validator_for(schema))


def test_the_specification_would_find_a_mistake(files: dict[str, dict[str, Any]]) -> None:
    """The check above can fail: a misspelt key and a wrong type are refused."""
    schema = get_builtin_schema("vendor.compose-spec")
    for wrong in ({"read_onyl": True}, {"healthcheck": {"retries": []}}):
        broken = compose.merge(files["gpu"], {"services": {"api": wrong}})
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema, cls=jsonschema.validators.validator_for(schema))


def test_every_role_has_a_service_and_every_service_a_role(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"postgres", "valkey", *OURS}
    assert {name for name, service in services.items() if service.get("profiles")} == {"tools"}


def test_each_command_is_one_of_the_cli(services: dict[str, dict[str, Any]]) -> None:
    """The role is the first word; the rest must parse as that command's options."""
    group = typer.main.get_command(cli)
    for name in OURS:
        role, *options = services[name]["command"]
        assert role == ("doctor" if name == "tools" else name)
        command = group.commands[role]  # type: ignore[attr-defined]
        context = command.make_context(role, list(options))
        assert context.params is not None
    assert 'ENTRYPOINT ["tagmill"]' in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_api_listens_where_its_port_is_published(services: dict[str, dict[str, Any]]) -> None:
    command = typer.main.get_command(cli).commands["api"]  # type: ignore[attr-defined]
    given = command.make_context("api", list(services["api"]["command"][1:])).params
    assert given["host"] == "0.0.0.0"
    (published,) = services["api"]["ports"]
    assert published.rpartition(":")[2] == str(given["port"])
    assert published.startswith("127.0.0.1:"), "by default only this machine may reach the API"
    assert f"127.0.0.1:{given['port']}/readyz" in services["api"]["healthcheck"]["test"][-1]


def test_every_tagmill_variable_is_known_to_the_code(files: dict[str, dict[str, Any]]) -> None:
    for way in files.values():
        for name in OURS:
            given = {key for key in way["services"][name]["environment"] if key.startswith("TAGMILL_")}
            assert given <= field_variables() | command_variables(), name
            assert given == way["services"][name]["environment"].keys(), "a variable of nobody's"


@pytest.mark.parametrize("way", ["gpu", "cpu"])
@pytest.mark.parametrize("name", roles.ROLES)
def test_each_role_starts_with_its_environment(
    files: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, way: str, name: str
) -> None:
    environment = files[way]["services"][name]["environment"]
    for key, value in environment.items():
        monkeypatch.setenv(key, str(value))
    settings = ApiSettings() if name == "api" else WorkerSettings()
    role = API_ROLE if name == "api" else WORKER_ROLE
    assert settings.database_url.startswith(f"postgresql://{role}:")
    if isinstance(settings, WorkerSettings) and name == "worker":
        assert settings.devices == (["cpu"] if way == "cpu" else ["cuda:0"])


def test_only_migrations_hold_the_owners_password(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        holds = GIVEN["POSTGRES_PASSWORD"] in str(service)
        assert holds == (name in ("postgres", "migrate")), name


def test_the_workers_queues_are_the_codes(services: dict[str, dict[str, Any]]) -> None:
    """The container starts `tagmill worker`, which consumes the code's queues: no list of its own can differ."""
    assert services["worker"]["command"] == ["worker"]
    assert roles.command("worker")[1:] == ["-m", app.__name__]
    assert consumed_queues() == [app.QUEUE]


def test_who_speaks_to_the_broker_reaches_it_and_nobody_else(services: dict[str, dict[str, Any]]) -> None:
    on_broker = {name for name, service in services.items() if "broker" in service["networks"]}
    assert on_broker == {"valkey", "worker", "maintenance", "tools"}
    for name in on_broker - {"valkey"}:
        password = GIVEN["VALKEY_PASSWORD"]
        assert services[name]["environment"]["TAGMILL_BROKER_URL"] == f"redis://:{password}@valkey:6379/0"
        assert "valkey" in services[name].get("depends_on", {}) or name == "tools"


def test_networks_give_each_role_no_more_than_it_needs(files: dict[str, dict[str, Any]]) -> None:
    networks, services = files["gpu"]["networks"], files["gpu"]["services"]
    assert {name for name, network in networks.items() if network.get("internal")} == {"database", "broker"}
    outside = {name for name, service in services.items() if "outside" in service["networks"]}
    assert outside == {"crawler", "maintenance", "tools"}, "to fetch, to send webhooks, to pull models"
    assert services["crawler"]["networks"] == ["database", "outside"]
    assert services["worker"]["networks"] == ["database", "broker"], "hostile bytes may be there: no way out"
    assert services["trainer"]["networks"] == ["database"], "so may they here"
    assert {name for name, service in services.items() if service.get("ports")} == {"api"}


def test_the_broker_evicts_nothing_and_keeps_a_log(services: dict[str, dict[str, Any]]) -> None:
    command = " ".join(services["valkey"]["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command
    assert "requirepass $VALKEY_PASSWORD" in command
    assert GIVEN["VALKEY_PASSWORD"] not in command, "a password in a command line is for every process to see"


def test_postgres_brings_pgvector(services: dict[str, dict[str, Any]]) -> None:
    assert services["postgres"]["image"].startswith("pgvector/pgvector:pg")
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"], "where images of 18 and later keep data"


def test_nothing_runs_with_more_rights_than_it_needs(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert str(service["user"]).split(":")[0] not in ("", "0", "root"), name
        assert not service.get("privileged")
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", [])), name


def test_everything_has_limits(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() >= {"cpus", "memory", "pids"}, name
        assert all("size=" in mount or "/run/" in mount for mount in service["tmpfs"]), "a tmpfs counts as memory"


def test_what_runs_on_is_watched_and_restarted(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name in ("migrate", "tools"):
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
    for role in roles.BEATING:
        assert services[role]["healthcheck"]["test"] == ["CMD", "python", "-m", "worker.alive", role]


def test_roles_wait_for_the_schema(services: dict[str, dict[str, Any]]) -> None:
    for name in (*roles.ROLES, "tools"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_volumes(files: dict[str, dict[str, Any]]) -> None:
    services = files["gpu"]["services"]
    assert set(files["gpu"]["volumes"]) == {"postgres", "valkey", "blobs", "models"}
    assert all(volume.endswith(":ro") for volume in services["worker"]["volumes"])
    for name in OURS:
        environment = services[name]["environment"]
        roots = {environment.get("TAGMILL_BLOB_ROOT"), environment.get("TAGMILL_MODEL_ROOT")}
        for volume in services[name].get("volumes", []):
            assert volume.split(":")[1] in roots or volume.endswith(":/pictures:ro"), name
    assert {n for n in OURS if any(":/pictures:" in v for v in services[n].get("volumes", []))} == {"trainer", "tools"}


@pytest.mark.parametrize("name", ["worker", "trainer"])
def test_a_gpu_is_reserved_and_the_override_gives_it_back(files: dict[str, dict[str, Any]], name: str) -> None:
    (device,) = files["gpu"]["services"][name]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    cpu = files["cpu"]["services"][name]
    assert "reservations" not in cpu["deploy"]["resources"]
    assert cpu["deploy"]["resources"]["limits"], "the override must not take the limits away"


def test_workers_use_the_devices_of_their_machine(files: dict[str, dict[str, Any]]) -> None:
    devices = {way: each["services"]["worker"]["environment"]["TAGMILL_DEVICES"] for way, each in files.items()}
    assert devices == {"gpu": "cuda:0", "cpu": "cpu"}


def test_the_example_holds_every_variable_and_no_secret() -> None:
    needed = compose.variables("docker-compose.yml") | compose.variables("docker-compose.cpu.yml")
    example = compose.example()
    assert needed.keys() == example.keys()
    assert {name for name, must in needed.items() if must} == set(SECRETS)
    assert all(example[name] == "" for name in SECRETS)


def test_the_example_names_only_what_exists_and_its_values_are_the_defaults() -> None:
    """A variable that stands for a setting has the setting's name, and changes nothing as long as it is left alone."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    passed = set(re.findall(r"^ +TAGMILL_(\w+): \$\{(\w+):-(.*)\}$", text, re.MULTILINE))
    assert {name for name, variable, _ in passed if name != variable} == set()
    about_containers = {"API_BIND", "API_PORT", "GPUS", "PICTURES", "THREADS", "TORCH_BACKEND", *SECRETS}
    example = compose.example()
    assert example.keys() - about_containers == {name for name, _, _ in passed}
    assert {f"TAGMILL_{name}" for name, _, _ in passed} <= field_variables()
    fields = {**ApiSettings.model_fields, **WorkerSettings.model_fields}
    for name, _, default in passed:
        assert example[name] == default, name
        own = fields[name.lower()].get_default(call_default_factory=True)
        if name != "DEVICES" and isinstance(own, bool | int | float):
            assert float({"true": 1, "false": 0}.get(default, default)) == own, name


@pytest.mark.parametrize("missing", SECRETS)
def test_nothing_starts_without_its_secret(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        compose.load("docker-compose.yml", {**GIVEN, missing: ""})


def test_the_image_holds_the_packages_and_runs_as_nobody_in_particular() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = set(re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE))
    assert copied == {"api", "db", "ml", "worker", "migrations"}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in (*copied, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        assert f"!{name}" in ignored, f"{name} does not reach the builder"
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "10001:10001"
    assert not re.search(r"(?i)(password|secret|token)\s*=", text)
