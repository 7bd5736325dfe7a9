"""Black box: these tests know the contract and the wire, and import nothing of the product."""

import itertools
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.servers import Server

MakeBucket = Callable[..., str]
MakeKey = Callable[..., str]


@pytest.fixture(scope="module")
def api(each_server: Server) -> Iterator[httpx.Client]:
    """A client that may do everything; what it did is looked through at the end."""
    with each_server.client() as client:
        yield client
    each_server.check_leftovers()


@pytest.fixture(scope="module")
def nobody(each_server: Server) -> Iterator[httpx.Client]:
    """A client without a key."""
    with each_server.client(anonymous=True) as client:
        yield client


@pytest.fixture(scope="module")
def make_bucket(api: httpx.Client) -> MakeBucket:
    """`make_bucket(quota_bytes=100)` gives the name of a new bucket."""
    numbers = itertools.count()

    def make(**policy: object) -> str:
        name = f"bucket-{next(numbers)}"
        made = api.post("/v1/buckets", json={"name": name, **policy})
        assert made.status_code == 201, made.text
        return name

    return make


@pytest.fixture(scope="module")
def make_key(api: httpx.Client) -> MakeKey:
    """`make_key("assets:read", bucket="media")` gives the secret of a new key."""

    def make(*scopes: str, **more: object) -> str:
        made = api.post("/v1/keys", json={"scopes": scopes, **more})
        assert made.status_code == 201, made.text
        return str(made.json()["secret"])

    return make


@pytest.fixture(scope="module")
def client_with(each_server: Server, make_key: MakeKey) -> Iterator[Callable[..., httpx.Client]]:
    """`client_with("assets:read", bucket=…)`: a client that bears such a key."""
    clients: list[httpx.Client] = []

    def make(*scopes: str, **more: object) -> httpx.Client:
        clients.append(each_server.client(make_key(*scopes, **more)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
