"""What people deploy with is well formed, and the set-up commands work from nothing."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mediasvc.settings import Settings, variable

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "deploy/requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SCRIPTS = [
    "deploy/run",
    "deploy/test",
    "deploy/venv",
    "deploy/lock",
    "deploy/bench/run",
    ".ci/run",
    "tests/clients/install",
]


def locked(python: str) -> dict[str, str]:
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.1"}
    pins = [Requirement(line) for line in LOCK.splitlines() if line and not line.startswith("#")]
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(environment)
    }


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_every_dependency_is_pinned_and_no_pin_lies_below_its_floor(python):
    pins = locked(python)
    extras = PROJECT["optional-dependencies"].values()
    wanted = [Requirement(text) for group in [PROJECT["dependencies"], *extras] for text in group]
    for requirement in wanted:
        if requirement.name != "mediasvc":
            pin = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pin, prereleases=True), f"{requirement} is pinned to {pin}"


def test_the_lock_names_no_place():
    assert not re.search(r"https?://|file:|--(extra-)?index|--find-links|/home/|/root/|/tmp/", LOCK)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script):
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text().splitlines()[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", path], check=True)


def test_the_compose_file_is_valid():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, ROOT / "docker-compose.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_is_confined_and_pinned(name):
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert re.search(r":\d+\.\d+\.\d+$", service["image"])
    assert "privileged" not in service


def test_nginx_beside_the_service_has_the_shipped_file_its_network_and_its_blobs():
    service, nginx = COMPOSE["services"]["mediasvc"], COMPOSE["services"]["nginx"]
    assert "./nginx.conf:/etc/nginx/nginx.conf:ro" in nginx["volumes"]
    assert nginx["network_mode"] == "service:mediasvc"
    assert "data:/data" in service["volumes"]
    assert "data:/var/lib/mediasvc:ro" in nginx["volumes"]
    assert "alias /var/lib/mediasvc/blobs/;" in (ROOT / "nginx.conf").read_text()
    (group,) = nginx["group_add"]
    assert f"--gid {group} mediasvc" in (ROOT / "deploy/Dockerfile").read_text()
    assert service["environment"]["MEDIASVC_DELIVERY"] == "nginx"
    assert service["environment"]["MEDIASVC_TRUSTED_PROXIES"] == "127.0.0.1/32"
    assert f"server={service['environment']['MEDIASVC_RECEIPTS']}," in (ROOT / "nginx.conf").read_text()


@pytest.mark.parametrize(
    "name", ["deploy/README.md", "docker-compose.yml", "nginx.conf", "deploy/behind-nginx"]
)
def test_every_setting_named_there_exists(name):
    named = set(re.findall(r"\bMEDIASVC_[A-Z_]+[A-Z]", (ROOT / name).read_text()))
    assert named <= {variable(field) for field in Settings.model_fields}
    assert named


def test_behind_nginx_needs_nothing_but_python():
    script = ROOT / "deploy/behind-nginx"
    assert os.access(script, os.X_OK)
    tree = ast.parse(script.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name
        for node in imports
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_the_image_is_pinned_and_not_run_as_root():
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert all(re.search(r":\d+\.\d+\.\d+-slim", line) for line in re.findall(r"(?m)^FROM .*", text))
    assert re.findall(r"(?m)^USER (.*)", text) == ["10001"]
    assert "requirements.lock" in text


def test_hadolint_finds_nothing():
    beside = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if beside is None:
        pytest.skip("hadolint comes as a wheel for Linux on x86-64 only")
    done = subprocess.run([beside, ROOT / "deploy/Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_without_a_python_the_set_up_says_what_to_install(tmp_path):
    for name in ("deploy/venv", "deploy/run", "deploy/requirements.lock", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run(
        [tmp_path / "deploy/run"],
        env={**os.environ, "PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr


def test_deploy_run_makes_a_working_command_out_of_a_checkout(tmp_path):
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, tracked.split("\0")):
        if name.startswith(("mediasvc/", "deploy/")) or name in ("pyproject.toml", "README.md"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for _ in range(2):  # the second time nothing is left to install
        done = subprocess.run(
            [tmp_path / "deploy/run", "--help"], cwd="/", capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        assert "--data-dir" in done.stdout
    assert "installing" not in done.stderr
