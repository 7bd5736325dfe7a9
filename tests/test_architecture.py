"""What must hold for the house as a whole."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mediasvc.core.errors as errors
from mediasvc.core.errors import MediasvcError

ROOT = Path(__file__).parent.parent


def family(of: type[MediasvcError] = MediasvcError) -> list[type[MediasvcError]]:
    return [of, *(member for child in of.__subclasses__() for member in family(child))]


def test_imports_flow_one_way() -> None:
    linter = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    result = subprocess.run(linter, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_error_has_a_code_and_a_status_and_every_code_a_place_in_one_file() -> None:
    for error in family():
        assert error.code
        assert error.title
        assert 400 <= error.status <= 599
        named_here = inspect.getmodule(error) is errors
        # A room may tell its own cases apart, but not invent what callers get to see.
        assert named_here or "code" not in vars(error), f"{error.__name__} belongs into core/errors.py"


def test_codes_tell_errors_of_different_status_apart() -> None:
    by_code: dict[str, set[int]] = {}
    for error in family():
        by_code.setdefault(error.code, set()).add(error.status)
    assert {
        code: statuses for code, statuses in by_code.items() if len(statuses) > 1 and code != "internal"
    } == {}


def test_importing_has_no_effects(tmp_path: Path) -> None:
    program = (
        "import pkgutil, importlib, threading, mediasvc\n"
        "for module in pkgutil.walk_packages(mediasvc.__path__, 'mediasvc.'):\n"
        "    if 'migrations' not in module.name and not module.name.endswith(('__main__', 'decoder_main')):\n"
        "        importlib.import_module(module.name)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "foreign"),
    [
        # Idle memory, and what an attacker could reach in the server's process.
        (
            "serve",
            "PIL pyvips numpy pillow_heif boto3 botocore minio alembic httpx stamina mediasvc.cli.push",
        ),
        ("push", "fastapi sqlalchemy uvicorn mediasvc.bootstrap"),
        ("keys", "fastapi uvicorn httpx"),
        ("", "PIL pyvips numpy pillow_heif boto3 botocore minio alembic"),
    ],
)
def test_a_command_does_not_load_what_it_does_not_use(command: str, foreign: str) -> None:
    program = (
        "import sys, mediasvc.cli\n"
        f"mediasvc.cli.program({command!r})\n"
        f"heavy = set({foreign.split()!r}) & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "mediasvc").rglob("*.py")
        if not path.read_text(encoding="utf-8").lstrip().startswith('"""')
    ]
    assert silent == []
