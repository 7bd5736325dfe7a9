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
        ({"MEDIASVC_SECRET_KEY": "fifteen letters"}, "MEDIASVC_SECRET_KEY must be secrets of 16 printable"),
        ({"MEDIASVC_SECRET_KEY": "long enough to sign with,x"}, "MEDIASVC_SECRET_KEY must be secrets"),
        ({"MEDIASVC_PUBLIC_URL": "media.example.org"}, "MEDIASVC_PUBLIC_URL must be an absolute URL"),
        ({"MEDIASVC_TRUSTED_PROXIES": "10.0.0.0/8,nginx"}, "MEDIASVC_TRUSTED_PROXIES"),
        ({"MEDIASVC_RECEIPTS": "5140"}, "MEDIASVC_RECEIPTS must be an address and a port"),
        ({"MEDIASVC_RECEIPTS": "nginx:5140"}, "MEDIASVC_RECEIPTS must be an address and a port"),
        ({"MEDIASVC_RECEIPTS": "0.0.0.0:5140"}, "MEDIASVC_RECEIPTS must be on loopback"),
        ({"MEDIASVC_RECEIPTS": "192.0.2.1:5140"}, "MEDIASVC_RECEIPTS must be on loopback"),
        ({"MEDIASVC_RECEIPTS": "127.0.0.1:0"}, "MEDIASVC_RECEIPTS must name a port"),
        ({"MEDIASVC_SWEEP_INTERVAL": "often"}, "MEDIASVC_SWEEP_INTERVAL must be a number of seconds"),
        ({"MEDIASVC_MAX_UPLOAD_SIZE": "0"}, "MEDIASVC_MAX_UPLOAD_SIZE"),
        ({"MEDIASVC_CATALOGUE_URL": "postgresql://db/media"}, "PostgreSQL is not built yet"),
        ({"MEDIASVC_DELIVERY": "apache"}, "MEDIASVC_DELIVERY must be direct, nginx or redirect"),
        ({"MEDIASVC_DISPATCHER": "off"}, "MEDIASVC_DISPATCHER"),
        ({"MEDIASVC_RATE_LIMIT": "100"}, "MEDIASVC_RATE_LIMIT must be a number of requests in a time"),
        ({"MEDIASVC_CORS_ORIGINS": "https://a.example, b"}, "MEDIASVC_CORS_ORIGINS 'b' is no origin"),
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


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5140", ("127.0.0.1", 5140)),
        ("localhost:5140", ("127.0.0.1", 5140)),
        ("[::1]:5140", ("::1", 5140)),
        ("", None),
    ],
)
def test_receipts_are_heard_on_loopback(text: str, address: tuple[str, int] | None) -> None:
    assert settings.read({"MEDIASVC_RECEIPTS": text}).receipts_address == address


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


@pytest.mark.parametrize("name", ["MEDIASVC_ADMIN_KEY", "MEDIASVC_SECRET_KEY"])
def test_no_secret_shows_when_settings_are_printed(name: str) -> None:
    secret = "msk_" + "s3cret" * 6
    assert secret not in repr(settings.read({name: secret}))


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
