"""Which types are looked at, and what the timeline says of the others."""

import subprocess
import sys

import pytest

from mediasvc.derive import registry


@pytest.mark.parametrize("media_type", sorted(set(registry.KINDS) - {"image/heic", "image/heif"}))
def test_base_types_are_accepted(media_type: str) -> None:
    assert registry.accepts(media_type)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/pdf", "video/mp4", "image/x-unheard-of", ""]
)
def test_other_types_are_kept_as_they_are(media_type: str) -> None:
    assert not registry.accepts(media_type)
    assert registry.why_not(media_type) == f"no deriver for {media_type}: kept as it is"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_installed", lambda package: package != "pillow_heif")
    assert not registry.accepts("image/heic")
    assert registry.why_not("image/heic") == "HEIC needs the extra: pip install 'mediasvc[heic]'"


def test_asking_imports_no_image_library() -> None:
    program = (
        "import sys; from mediasvc.derive import registry, sandbox; registry.accepts('image/heic');"
        "sys.exit(bool({'PIL', 'pyvips', 'numpy', 'pillow_heif'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
