"""Settings are read once, and what is wrong with them is said in one sentence."""

from pathlib import Path

import pytest

from mediasvc import settings
from mediasvc.core.durations import parse_duration
from mediasvc.core.errors import StartupRefused


def test_nothing_set_is_the_embedded_service() -> None:
    chosen = settings.read({})
    assert chosen.data_dir == Path.cwd() / "mediasvc-data"
    assert chosen.store == f"file:{chosen.data_dir}/blobs"
    assert chosen.catalogue_path == chosen.data_dir / "catalogue.db"
    assert (chosen.host, chosen.port) == ("127.0.0.1", 8000)


def test_a_flag_wins_over_its_variable() -> None:
    assert settings.read({"MEDIASVC_PORT": "9000"}, port=9001).port == 9001
    assert settings.read({"MEDIASVC_PORT": "9000"}, port=None).port == 9000


def test_an_empty_variable_is_not_set() -> None:
    assert settings.read({"MEDIASVC_PUBLIC_URL": "", "MEDIASVC_MAX_UPLOAD_SIZE": ""}).max_upload_size is None


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"MEDIASVC_STOER_URL": "x"}, "did you mean MEDIASVC_STORE_URL?"),
        ({"MEDIASVC_PORT": "http"}, "MEDIASVC_PORT"),
        ({"MEDIASVC_PORT": "70000"}, "MEDIASVC_PORT"),
        ({"MEDIASVC_ADMIN_KEY": "msk_short"}, "MEDIASVC_ADMIN_KEY must be 32 characters"),
        ({"MEDIASVC_ADMIN_KEY": "x" * 40}, "begin with msk_"),
        ({"MEDIASVC_PUBLIC_URL": "media.example.org"}, "MEDIASVC_PUBLIC_URL must be an absolute URL"),
        ({"MEDIASVC_TRUSTED_PROXIES": "10.0.0.0/8,nginx"}, "MEDIASVC_TRUSTED_PROXIES"),
        ({"MEDIASVC_SWEEP_INTERVAL": "often"}, "MEDIASVC_SWEEP_INTERVAL must be a number of seconds"),
        ({"MEDIASVC_MAX_UPLOAD_SIZE": "0"}, "MEDIASVC_MAX_UPLOAD_SIZE"),
        ({"MEDIASVC_CATALOGUE_URL": "postgresql://db/media"}, "PostgreSQL is not built yet"),
        ({"MEDIASVC_DELIVERY": "nginx"}, "MEDIASVC_DELIVERY asks for something that is not built yet"),
        ({"MEDIASVC_DISPATCHER": "off"}, "MEDIASVC_DISPATCHER"),
        ({"MEDIASVC_RATE_LIMIT": "100/second"}, "MEDIASVC_RATE_LIMIT"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_said_in_one_sentence_that_names_the_variable(
    environ: dict[str, str], says: str
) -> None:
    with pytest.raises(StartupRefused) as refused:
        settings.read(environ)
    assert says in refused.value.detail
    assert "\n" not in refused.value.detail


@pytest.mark.parametrize("name", sorted(settings.NOT_BUILT))
def test_the_default_of_what_is_not_built_may_be_set(name: str) -> None:
    settings.read({name: settings.NOT_BUILT[name]})


def test_what_kubernetes_injects_is_ignored_and_named() -> None:
    environ = {
        "MEDIASVC_SERVICE_HOST": "10.0.0.1",
        "MEDIASVC_SERVICE_PORT_HTTP": "80",
        "MEDIASVC_PORT": "tcp://10.0.0.1:80",
        "MEDIASVC_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert settings.read(environ).port == 8000
    assert settings.ignored_variables(environ) == sorted(environ)


def test_variables_of_one_command_are_known_to_all() -> None:
    settings.read({"MEDIASVC_SERVER": "http://127.0.0.1:8000", "MEDIASVC_KEY": "msk_x"})


def test_the_admin_key_does_not_show_when_settings_are_printed() -> None:
    secret = "msk_" + "s3cret" * 6
    assert secret not in repr(settings.read({"MEDIASVC_ADMIN_KEY": secret}))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3600", 3600), (90, 90), ("90s", 90), ("5m", 300), ("12h", 43200), ("30d", 2_592_000), ("0.5", 0.5)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "1w", "1 d x", "1e9", "nan", "99999999999d", True, "３"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        parse_duration(text)
