"""The README tells the truth: its commands run, its tables match the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mediasvc.settings import Settings, variable
from tests.servers import Server

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOUR = re.findall(r"^```sh tour\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


PYTHON = re.findall(r"^```python tour\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def settings_table() -> dict[str, str]:
    table = README.split("<!-- settings:")[1].split("\n\n")[0]
    return dict(re.findall(r"^\| `(MEDIASVC_\w+)` \| .* \| (.*) \|$", table, re.MULTILINE))


def test_every_setting_is_documented_and_nothing_else() -> None:
    assert sorted(settings_table()) == sorted(variable(field) for field in Settings.model_fields)


@pytest.mark.parametrize(
    "field",
    [name for name, info in Settings.model_fields.items() if isinstance(info.default, str | int | float)],
)
def test_documented_defaults_are_the_real_ones(field: str) -> None:
    default = Settings.model_fields[field].default
    told = settings_table()[variable(field)].strip("`")
    if default != "":
        assert told == f"{default:g}" if isinstance(default, float) else told == str(default)
    else:
        assert told == "none" or "<data-dir>" in told


def test_the_tour_runs_when_pasted(server: Server) -> None:
    """Every block of the tour, in one shell, stopping at the first thing that fails."""
    script = (
        "\n".join(TOUR)
        .replace("http://127.0.0.1:8000", server.url)
        .replace("mediasvc-data", str(server.data_dir))
    )
    script = script.replace("curl -sS", "curl -fsS")
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=server.env
        | {
            "PATH": f"{Path(sys.executable).parent}:{server.env['PATH']}",
            "MEDIASVC_DATA_DIR": str(server.data_dir),
            "MEDIASVC_SERVER": server.url,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{server.url}/f/ast_" in result.stdout
    assert re.search(r"msk_[\w-]{32}\n", result.stdout)


def test_the_python_example_uploads(server: Server) -> None:
    script = "\n".join(PYTHON).replace("http://127.0.0.1:8000", server.url) + "\nprint(upload.url)\n"
    result = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", script],
        cwd=ROOT,
        env=server.env | {"KEY": server.admin_key},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    with server.client() as client:
        told = client.get(result.stdout.strip()).json()
        assert told["state"] == "complete"
        photo = (ROOT / "tests/data/photo.jpg").read_bytes()
        assert client.get(told["asset"]["url"]).content == photo


def test_the_packages_it_names_are_dependencies() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for package in (
        "fastapi",
        "uvicorn",
        "python-multipart",
        "aiofiles",
        "boto3",
        "minio",
        "pillow",
        "httpx",
        "pytest",
    ):
        assert re.search(rf'^  "{package}[\[>=]', pyproject, re.MULTILINE), package


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:mediasvc|tests|deploy)/[\w./]+)`", README))))
def test_the_paths_it_names_exist(path: str) -> None:
    assert (ROOT / path).exists()
