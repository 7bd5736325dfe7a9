"""Every knob, explained where it stands, read once from the environment and passed in as one value."""

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mediasvc.core.durations import parse_duration
from mediasvc.core.errors import StartupRefused
from mediasvc.core.origins import parse_origin
from mediasvc.core.signing import secrets_in

PREFIX = "MEDIASVC_"

# Part of the contract, but what they ask for is not built yet: any value but the default stops the start.
NOT_BUILT: Mapping[str, str] = {
    "MEDIASVC_DISPATCHER": "on",
}
CATALOGUE = "catalogue.db"  # in a data directory
# Read by one command only, but known to all, so that one environment serves them all.
OF_COMMANDS = frozenset({"MEDIASVC_SERVER", "MEDIASVC_KEY"})
# One limit as the library `limits` reads it, which is imported only where there is one.
_RATE = re.compile(
    r"[1-9]\d{0,8} *(/|per) *([1-9]\d{0,3} *)?(second|minute|hour|day)s?", re.ASCII | re.IGNORECASE
)
# What Kubernetes puts into the environment for a service named mediasvc.
_INJECTED = re.compile(r"MEDIASVC_(SERVICE_.*|PORT_.*)|MEDIASVC_PORT(?==tcp://)")


class Settings(BaseSettings):
    """One value for the whole process. Sizes in bytes, durations in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: Path = Field(Path("mediasvc-data"), description="everything embedded lives here")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on (0: any free one)")
    store_url: str = Field(
        "",
        description="where blobs rest: `file:PATH` or `s3://store-bucket?endpoint=http://host:port&region=…` "
        "(credentials: the standard AWS variables; `&public_endpoint=…`: what URLs given to clients name); "
        "default `file:<data-dir>/blobs`",
    )
    catalogue_url: str = Field("", description="`sqlite:PATH`; default `sqlite:<data-dir>/catalogue.db`")
    public_url: str | None = Field(
        None,
        description="what links and `Location` begin with, such as `https://media.example.org`; "
        "default: trusted proxy headers, else the request",
    )
    trusted_proxies: str = Field(
        "", description="CIDRs, comma-separated, whose X-Forwarded-* and Forwarded count"
    )
    delivery: Literal["direct", "nginx", "redirect"] = Field(
        "direct",
        description="how downloads leave: `direct`, `nginx` (it gets X-Accel-Redirect, if it is a trusted proxy) or "
        "`redirect` (307 to a presigned URL of the S3 store)",
    )
    admin_key: SecretStr | None = Field(
        None,
        description="a fixed admin key: 32 characters or more that begin with `msk_`; default: generated",
    )
    secret_key: SecretStr | None = Field(
        None,
        description="signs links: 16 characters or more; several, comma-separated: the first signs, all verify; "
        "default: generated into `<data-dir>/secret.key`",
    )
    max_upload_size: int | None = Field(
        None, ge=1, description="largest request body and largest asset, bytes; default: no limit"
    )
    max_request_size: int | None = Field(
        None,
        ge=1,
        description="the body cap of a proxy in front, bytes: resumable uploads are told to send no more at once; "
        "default: no cap",
    )
    upload_expires: float = Field(
        7 * 86400,
        gt=0,
        description="how long an unfinished upload is kept after its last append, seconds (`7d` works too)",
    )
    max_open_uploads: int = Field(
        10_000, ge=1, description="unfinished uploads that a key may have (429 beyond)"
    )
    durability: Literal["complete", "ack"] = Field(
        "complete",
        description="what survives a power cut: `complete`: every upload that was acknowledged whole; "
        "`ack`: every offset that was acknowledged, too",
    )
    cors_origins: str = Field(
        "*",
        description="who may call the API and byte routes from a browser: origins, comma-separated, or `*`",
    )
    receipts: str = Field(
        "",
        description="UDP address, on loopback, on which nginx's delivery log is heard, such as `127.0.0.1:5140`",
    )
    rate_limit: str = Field(
        "",
        description="requests that a key may make, and an address without one, such as `100/second`; "
        "default: as many as they like",
    )
    sweep_interval: float = Field(
        600, gt=0, description="seconds between sweeps (`10m` works too); one runs at start"
    )

    @field_validator("data_dir")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("sweep_interval", "upload_expires", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value

    @field_validator("admin_key")
    @classmethod
    def _strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            secret = value.get_secret_value()
            if not (
                secret.startswith("msk_") and len(secret) >= 32 and secret.isascii() and secret.isprintable()
            ):
                raise ValueError("must be 32 characters or more of printable ASCII and begin with msk_")
            if any(character.isspace() for character in secret):
                raise ValueError("must not contain spaces")
        return value

    @field_validator("secret_key")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            secrets_in(value.get_secret_value())
        return value

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError("must be an absolute URL such as https://media.example.org")
        return value.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for item in filter(None, map(str.strip, value.split(","))):
            ipaddress.ip_network(item, strict=False)
        return value

    @field_validator("delivery", mode="before")
    @classmethod
    def _way(cls, value: Any) -> Any:
        if value not in get_args(cls.model_fields["delivery"].annotation):
            raise ValueError("must be direct, nginx or redirect")
        return value

    @field_validator("durability", mode="before")
    @classmethod
    def _promise(cls, value: Any) -> Any:
        if value not in get_args(cls.model_fields["durability"].annotation):
            raise ValueError("must be complete or ack")
        return value

    @field_validator("receipts")
    @classmethod
    def _loopback(cls, value: str) -> str:
        """A datagram carries no proof of who sent it: only this machine may be heard."""
        if value:
            host, port = _host_and_port(value)
            if not ipaddress.ip_address(host).is_loopback:
                raise ValueError("must be on loopback, where nginx is: who sent a datagram cannot be checked")
            if not 0 < port < 65536:
                raise ValueError("must name a port from 1 to 65535")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        return ",".join(parse_origin(item) for item in filter(str.strip, value.split(",")))

    @field_validator("rate_limit")
    @classmethod
    def _rate(cls, value: str) -> str:
        if value and not _RATE.fullmatch(value.strip()):
            raise ValueError("must be a number of requests in a time, such as 100/second or 5000/hour")
        return value.strip()

    @field_validator("catalogue_url")
    @classmethod
    def _built(cls, value: str) -> str:
        if value and not value.startswith("sqlite:"):
            raise ValueError("must begin with sqlite: (PostgreSQL is not built yet)")
        return value

    @property
    def blobs_dir(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def store(self) -> str:
        """The store's URL with its default filled in."""
        return self.store_url or f"file:{self.blobs_dir}"

    @property
    def catalogue_path(self) -> Path:
        given = self.catalogue_url.removeprefix("sqlite:")
        return Path(given).expanduser().absolute() if given else self.data_dir / CATALOGUE

    def beside_catalogue(self, name: str) -> Path:
        """Where is written down who is at work: whoever shares the catalogue sees it, whatever they call its path."""
        path = self.catalogue_path.resolve()
        return path.with_name(name if path.name == CATALOGUE else f"{path.name}-{name}")

    @property
    def admin_key_file(self) -> Path:
        return self.data_dir / "admin.key"

    @property
    def secret_key_file(self) -> Path:
        return self.data_dir / "secret.key"

    @property
    def proxy_networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        items = filter(None, map(str.strip, self.trusted_proxies.split(",")))
        return [ipaddress.ip_network(item, strict=False) for item in items]

    @property
    def receipts_address(self) -> tuple[str, int] | None:
        return _host_and_port(self.receipts) if self.receipts else None

    @property
    def allowed_origins(self) -> list[str]:
        return list(filter(None, self.cors_origins.split(",")))


def _host_and_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:5140` or `[::1]:5140`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        raise ValueError("must be an address and a port such as 127.0.0.1:5140") from None


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + field.upper()


def ignored_variables(environ: Mapping[str, str]) -> list[str]:
    """What Kubernetes injected: `MEDIASVC_PORT=tcp://…` is an address of its own, not our port."""
    return sorted(name for name, value in environ.items() if _INJECTED.match(f"{name}={value}"))


def read(environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    """The settings from the environment, command-line flags first (`None` means not given).

    Raises StartupRefused with one sentence that names the variable and the fix.
    """
    environ = os.environ if environ is None else environ
    injected = set(ignored_variables(environ))
    ours = {n: v for n, v in environ.items() if n.upper().startswith(PREFIX) and n not in injected}
    known = {variable(field) for field in Settings.model_fields} | OF_COMMANDS | set(NOT_BUILT)
    for name, value in sorted(ours.items()):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; the README lists them all"
            raise StartupRefused(f"{name} is not a setting{hint}")
        if name in NOT_BUILT and value not in ("", NOT_BUILT[name]):
            raise StartupRefused(f"{name} asks for something that is not built yet; unset it")
    values = {
        field: ours[variable(field)] for field in Settings.model_fields if ours.get(variable(field), "") != ""
    } | {field: value for field, value in flags.items() if value is not None}
    try:
        return Settings(_env_prefix="MEDIASVC_SETTINGS_ARE_READ_ABOVE_", **values)
    except ValidationError as error:
        first = error.errors()[0]
        name = variable(str(first["loc"][0]))
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise StartupRefused(f"{name} {reason[:1].lower()}{reason[1:]}") from None
