"""Who may do what: every route, with every kind of key."""

import base64
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.servers import Server

CHALLENGE = 'Basic realm="mediasvc"'
NO_ASSET = "ast_" + "0" * 39


@dataclass(frozen=True)
class Route:
    """One thing to ask for; `{asset}`, `{bucket}` and `{key}` stand for what the world below holds."""

    method: str
    target: str
    scope: str
    body: object = None
    done: int = 200
    outside: int = 404  # what a key narrowed to somewhere else gets


ROUTES = {
    "put": Route("PUT", "/b/{bucket}/a/{new}", "assets:write", b"x", 201),
    "get": Route("GET", "/b/{bucket}/a/here", "assets:read"),
    "head": Route("HEAD", "/b/{bucket}/a/here", "assets:read"),
    "get by id": Route("GET", "/f/{asset}/x", "assets:read"),
    "rendition": Route("GET", "/i/thumb/{asset}.webp", "assets:read", done=404),
    "delete": Route("DELETE", "/b/{bucket}/a/gone", "assets:delete", done=204),
    "form": Route("POST", "/v1/assets?bucket={bucket}&prefix=a/", "assets:write", "form", 201),
    "list": Route("GET", "/v1/assets?bucket={bucket}", "assets:read"),
    "asset": Route("GET", "/v1/assets/{asset}", "assets:read"),
    "patch asset": Route("PATCH", "/v1/assets/{asset}", "assets:write", {"tags": ["t"]}),
    "timeline": Route("GET", "/v1/assets/{asset}/tasks", "assets:read"),
    "check": Route("POST", "/v1/assets/check", "assets:read", {"items": []}, outside=200),
    "delete asset": Route("DELETE", "/v1/assets/{gone}", "assets:delete", done=204),
    "bucket": Route("GET", "/v1/buckets/{bucket}", "buckets:admin"),
    "patch bucket": Route("PATCH", "/v1/buckets/{bucket}", "buckets:admin", {"public": False}),
    "buckets": Route("GET", "/v1/buckets", "buckets:admin", outside=200),
    "keys": Route("GET", "/v1/keys", "keys:admin", outside=200),
    "key": Route("GET", "/v1/keys/{key}", "keys:admin"),
    "metrics": Route("GET", "/metrics", "metrics:read", outside=200),
}
SCOPES = ["assets:read", "assets:write", "assets:delete", "buckets:admin", "keys:admin", "metrics:read"]


@dataclass
class World:
    """A bucket with assets in it, and clients with keys of all kinds."""

    server: Server
    api: httpx.Client
    bucket: str
    asset: str
    key: str
    clients: dict[str, httpx.Client]

    def ask(self, route: Route, client: httpx.Client) -> httpx.Response:
        names = {"bucket": self.bucket, "asset": self.asset, "key": self.key, "new": secrets.token_hex(8)}
        if "gone" in route.target:
            names["gone"] = self.api.put(f"/b/{self.bucket}/a/gone", content=b"gone").json()["id"]
        target = route.target.format_map(names)
        match route.body:
            case bytes():
                return client.request(route.method, target, content=route.body)
            case "form":
                return client.request(route.method, target, files={"f": ("f.txt", b"1")})
            case None:
                return client.request(route.method, target)
        return client.request(route.method, target, json=route.body)


@pytest.fixture(scope="module")
def world(
    server: Server,
) -> Iterator[World]:
    with server.client() as api:
        for bucket in ("guarded", "other"):
            assert api.post("/v1/buckets", json={"name": bucket}).status_code == 201

        def key(scopes: list[str], **more: object) -> httpx.Client:
            made = api.post("/v1/keys", json={"scopes": scopes, **more})
            assert made.status_code == 201, made.text
            return server.client(made.json()["secret"])

        own = api.post("/v1/keys", json={"scopes": ["assets:read"], "bucket": "guarded", "prefix": "a/b/"})
        clients = {
            "nobody": server.client(anonymous=True),
            "foreign": key(SCOPES, bucket="other"),
            "elsewhere": key(SCOPES, bucket="guarded", prefix="z/"),
            "bucket": key(SCOPES, bucket="guarded"),
            "prefix": key(SCOPES, bucket="guarded", prefix="a/"),
        } | {f"only {scope}": key([scope]) for scope in SCOPES}
        asset = api.put("/b/guarded/a/here", content=b"here").json()["id"]
        yield World(server, api, "guarded", asset, own.json()["id"], clients)
        for client in clients.values():
            client.close()


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_the_right_scope_opens_a_route(world: World, route: Route) -> None:
    assert world.ask(route, world.clients[f"only {route.scope}"]).status_code == route.done


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_every_other_scope_is_403(world: World, route: Route) -> None:
    for scope in SCOPES:
        if scope != route.scope:
            answer = world.ask(route, world.clients[f"only {scope}"])
            assert answer.status_code == 403, scope
            if route.method != "HEAD":
                assert answer.json()["code"] == "forbidden"
                assert route.scope in answer.json()["detail"]


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer msk_" + "x" * 40,
        "Bearer",
        "Basic",
        "Basic !!!",
        "Digest x",
        "Basic bXNrOg==",
    ],
)
def test_no_key_or_an_unknown_one_is_401(world: World, route: Route, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization is not None else {}
    with httpx.Client(base_url=world.server.url, headers=headers) as client:
        answer = world.ask(route, client)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == CHALLENGE
    if route.method != "HEAD":
        assert answer.json()["code"] == "unauthorised"


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_a_key_of_another_bucket_sees_nothing(world: World, route: Route) -> None:
    assert world.ask(route, world.clients["foreign"]).status_code == route.outside


INSIDE_BUCKET = {"list": 200, "buckets": 200}


@pytest.mark.parametrize("name", ROUTES)
def test_a_key_of_another_prefix_sees_nothing(world: World, name: str) -> None:
    answer = world.ask(ROUTES[name], world.clients["elsewhere"])
    assert answer.status_code == INSIDE_BUCKET.get(name, ROUTES[name].outside)
    if name == "list":
        assert answer.json()["assets"] == answer.json()["prefixes"] == []


@pytest.mark.parametrize("name", [name for name in ROUTES if "bucket" not in name])
@pytest.mark.parametrize("kind", ["bucket", "prefix"])
def test_a_narrow_key_works_where_it_belongs(world: World, name: str, kind: str) -> None:
    assert world.ask(ROUTES[name], world.clients[kind]).status_code == ROUTES[name].done


def test_a_narrow_key_lists_only_what_is_its_own(world: World) -> None:
    world.api.put("/b/guarded/elsewhere", content=b"1")
    client = world.clients["prefix"]
    listed = client.get("/v1/assets?bucket=guarded").json()["assets"]
    assert listed
    assert all(asset["key"].startswith("a/") for asset in listed)
    assert client.get("/v1/assets?bucket=guarded&delimiter=/").json()["prefixes"] == ["a/"]
    assert client.get("/v1/assets?bucket=guarded&prefix=else").json()["assets"] == []


JSON = {"Content-Type": "application/json"}


def twin(answer: httpx.Response, *ids: str) -> tuple[object, ...]:
    """All of an answer that must not tell two cases apart."""
    body = answer.json()
    del body["request_id"]
    text = str(sorted(body.items()))
    for one in ids:
        text = text.replace(one, "ID")
    ignored = {"date", "x-request-id", "content-length"}
    return answer.status_code, text, sorted((k, v) for k, v in answer.headers.items() if k not in ignored)


@pytest.mark.parametrize("kind", ["nobody", "foreign", "elsewhere"])
@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/v1/assets/{}"), ("PATCH", "/v1/assets/{}"), ("DELETE", "/v1/assets/{}"), ("GET", "/f/{}/x"),
     ("GET", "/v1/assets/{}/tasks"), ("GET", "/i/thumb/{}.webp"), ("GET", "/i/nonsense/{}.xyz")],
)  # fmt: skip
def test_the_invisible_answers_as_the_absent(world: World, kind: str, method: str, target: str) -> None:
    real = world.asset
    absent = real[:-6] + ("000000" if real[-6:] != "000000" else "111111")
    client = world.clients[kind]
    content = b'{"tags": ["x"]}' if method == "PATCH" else None
    answers = [
        twin(client.request(method, target.format(one), content=content, headers=JSON), one)
        for one in (real, absent)
    ]  # fmt: skip
    assert answers[0] == answers[1]


@pytest.mark.parametrize("kind", ["nobody", "foreign", "elsewhere"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_invisible_key_answers_as_an_absent_one(world: World, kind: str, method: str) -> None:
    client = world.clients[kind]
    targets = ["guarded/a/here", "guarded/a/none"]
    if kind != "elsewhere":  # that one may know the bucket
        targets.append("no-such-bucket/a/here")
    content = b"x" if method == "PUT" else None
    answers = [
        twin(client.request(method, f"/b/{target}", content=content), target.partition("/")[0])
        for target in targets
    ]
    assert all(answer == answers[0] for answer in answers)


def test_a_foreign_bucket_is_404_even_without_the_scope(world: World) -> None:
    secret = world.api.post("/v1/keys", json={"scopes": ["metrics:read"], "bucket": "other"}).json()["secret"]
    with world.server.client(secret) as client:
        for name in ("put", "get", "delete", "form", "list", "asset", "patch asset", "timeline", "bucket"):
            assert world.ask(ROUTES[name], client).status_code == 404, name


def test_basic_and_bearer_are_the_same(server: Server) -> None:
    for headers in (
        {"Authorization": f"Bearer {server.admin_key}"},
        {"Authorization": f"bearer   {server.admin_key}"},
        {"Authorization": "Basic " + base64.b64encode(f":{server.admin_key}".encode()).decode()},
        {"Authorization": "Basic " + base64.b64encode(f"anyone:{server.admin_key}".encode()).decode()},
    ):
        assert httpx.get(server.url + "/v1/assets", headers=headers).status_code == 200


def test_a_public_bucket_needs_no_key_to_read(server: Server) -> None:
    with server.client() as api, server.client(anonymous=True) as nobody:
        asset = api.put("/b/public/open.txt", content=b"1").json()
        for target in ("/b/public/open.txt", f"/f/{asset['id']}/x", f"/v1/assets/{asset['id']}"):
            assert nobody.get(target).status_code == 200
            assert nobody.head(target).status_code == 200
        assert nobody.get("/b/public/absent").status_code == 404
        for method, target in (
            ("GET", "/v1/assets?bucket=public"),
            ("GET", f"/v1/assets/{asset['id']}/tasks"),
            ("PATCH", f"/v1/assets/{asset['id']}"),
            ("DELETE", f"/v1/assets/{asset['id']}"),
            ("PUT", "/b/public/open.txt"),
            ("DELETE", "/b/public/open.txt"),
            ("POST", "/v1/assets?bucket=public"),
        ):
            assert nobody.request(method, target).status_code == 401, (method, target)


@pytest.mark.parametrize("target", ["/healthz", "/readyz", "/openapi.json", "/docs", "/redoc"])
def test_some_doors_are_open(server: Server, target: str) -> None:
    assert httpx.get(server.url + target).status_code == 200


# ---- keys made by keys

ESCALATIONS = {
    "another scope": ({"scopes": ["keys:admin", "assets:read"]}, {"scopes": ["assets:write"]}, 403),
    "no bucket": ({"bucket": "guarded"}, {}, 201),  # inherits
    "another bucket": ({"bucket": "guarded"}, {"bucket": "other"}, 404),
    "another prefix": ({"bucket": "guarded", "prefix": "a/"}, {"bucket": "guarded", "prefix": "b/"}, 403),
    "a shorter prefix": ({"bucket": "guarded", "prefix": "a/"}, {"bucket": "guarded", "prefix": "a"}, 403),
    "no prefix": ({"bucket": "guarded", "prefix": "a/"}, {}, 201),  # inherits
    "a longer prefix": ({"bucket": "guarded", "prefix": "a/"}, {"prefix": "a/b/"}, 201),
}


@pytest.mark.parametrize(("maker", "wanted", "status"), ESCALATIONS.values(), ids=ESCALATIONS)
def test_a_key_gives_only_what_it_has(
    world: World, maker: dict[str, object], wanted: dict[str, object], status: int
) -> None:
    secret = world.api.post("/v1/keys", json={"scopes": SCOPES, **maker}).json()["secret"]
    with world.server.client(secret) as client:
        made = client.post("/v1/keys", json={"scopes": ["keys:admin"], **wanted})
        assert made.status_code == status, made.text
        if status == 201:
            assert made.json()["bucket"] == maker["bucket"]
            assert made.json()["prefix"].startswith(maker.get("prefix", ""))


def test_a_prefix_without_a_bucket_does_not_widen(world: World) -> None:
    made = world.api.post("/v1/keys", json={"scopes": SCOPES, "prefix": "a/"})
    if made.status_code != 201:
        assert made.status_code in (400, 422)
        return
    with world.server.client(made.json()["secret"]) as client:
        assert client.post("/v1/keys", json={"scopes": ["assets:read"], "prefix": "b/"}).status_code == 403
        assert client.post("/v1/keys", json={"scopes": ["assets:read"]}).json()["prefix"] == "a/"


def test_limits_are_passed_on(world: World) -> None:
    made = world.api.post("/v1/keys", json={"scopes": SCOPES, "max_asset_size": 10, "expires_in": 60}).json()
    with world.server.client(made["secret"]) as client:
        child = client.post(
            "/v1/keys", json={"scopes": SCOPES, "max_asset_size": 100, "expires_in": "1h"}
        ).json()
        assert child["max_asset_size"] == 10
        assert child["expires_at"] <= made["expires_at"]
        child = client.post("/v1/keys", json={"scopes": SCOPES}).json()
        assert (child["max_asset_size"], child["expires_at"]) == (10, made["expires_at"])


def test_a_narrow_keys_admin_manages_only_narrower_keys(world: World) -> None:
    other = world.api.post("/v1/keys", json={"scopes": ["assets:read"], "bucket": "other"}).json()["id"]
    with world.server.client(
        world.api.post("/v1/keys", json={"scopes": ["keys:admin"], "bucket": "guarded"}).json()["secret"]
    ) as client:
        assert client.get(f"/v1/keys/{other}").status_code == 404
        assert client.delete(f"/v1/keys/{other}").status_code == 404
        assert other not in [key["id"] for key in client.get("/v1/keys?limit=1000").json()["keys"]]
    assert world.api.get(f"/v1/keys/{other}").status_code == 200


def test_the_secret_is_shown_once(world: World) -> None:
    made = world.api.post("/v1/keys", json={"name": "once", "scopes": ["assets:read"]}).json()
    assert made["secret"].startswith("msk_")
    assert made["id"].startswith("key_")
    shown = world.api.get(f"/v1/keys/{made['id']}")
    assert "secret" not in shown.json()
    assert made["secret"] not in shown.text
    assert made["secret"] not in world.api.get("/v1/keys?limit=1000").text


def test_a_revoked_key_is_unknown_at_once(world: World) -> None:
    made = world.api.post("/v1/keys", json={"scopes": ["assets:read"]}).json()
    with world.server.client(made["secret"]) as client:
        assert client.get("/v1/assets").status_code == 200
        assert world.api.delete(f"/v1/keys/{made['id']}").status_code == 204
        assert client.get("/v1/assets").status_code == 401
    assert world.api.delete(f"/v1/keys/{made['id']}").status_code == 404
    assert world.api.get(f"/v1/keys/{made['id']}").status_code == 404


def test_an_expired_key_is_unknown(world: World) -> None:
    secret = world.api.post("/v1/keys", json={"scopes": ["assets:read"], "expires_in": 1}).json()["secret"]
    with world.server.client(secret) as client:
        assert client.get("/v1/assets").status_code == 200
        assert soon(lambda: client.get("/v1/assets").status_code == 401)


@pytest.mark.parametrize(
    "body",
    [{}, {"scopes": []}, {"scopes": ["root"]}, {"scopes": "assets:read"}, {"scopes": ["assets:read"], "x": 1},
     {"scopes": ["assets:read"], "expires_in": "soon"}, {"scopes": ["assets:read"], "max_asset_size": -1},
     {"scopes": ["assets:read"], "prefix": "a/../b"}, {"scopes": ["assets:read"], "bucket": "NO"}, [], 1, None],
    ids=str,
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_told(world: World, body: object) -> None:
    answer = world.api.post("/v1/keys", json=body)
    assert answer.status_code in (400, 422)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_key_for_a_bucket_that_is_not_there(world: World) -> None:
    assert world.api.post("/v1/keys", json={"scopes": ["assets:read"], "bucket": "absent"}).status_code == 404


def test_keys_are_listed_in_pages(world: World) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        page = world.api.get("/v1/keys", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["keys"]) <= 3
        seen += [key["id"] for key in page["keys"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert len(seen) == len(set(seen)) > 3
    assert seen == [key["id"] for key in world.api.get("/v1/keys?limit=1000").json()["keys"]]


def test_a_small_key_stores_only_small_assets(world: World) -> None:
    secret = world.api.post("/v1/keys", json={"scopes": ["assets:write"], "max_asset_size": 10}).json()[
        "secret"
    ]
    with world.server.client(secret) as client:
        assert client.put("/b/media/small", content=b"x" * 10).status_code == 201
        for content in (b"x" * 11, iter([b"x" * 11])):
            problem = client.put("/b/media/large", content=content).json()
            assert (problem["code"], problem["limit"], problem["limit_source"]) == ("too_large", 10, "key")
        assert client.put("/u/large", content=b"x" * 11).status_code == 413
        assert client.post("/v1/assets", files={"f": ("f", b"x" * 11)}).status_code == 413


# ---- the command line, beside the running server


def test_keys_of_the_command_line_count_at_once(server: Server) -> None:
    made = server.run("keys", "create", "--scope", "assets:read", "--name", "cli")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("msk_")
    assert "\n" not in secret
    with server.client(secret) as client:
        assert client.get("/v1/assets").status_code == 200
        listed = server.run("keys", "list", "--json").stdout
        assert secret not in listed
        with server.client() as api:
            (key,) = [k for k in api.get("/v1/keys?limit=1000").json()["keys"] if k["name"] == "cli"]
        assert server.run("keys", "revoke", key["id"]).returncode == 0
        assert soon(lambda: client.get("/v1/assets").status_code == 401, within=1)


def soon(holds: Callable[[], bool], within: float = 5) -> bool:
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
