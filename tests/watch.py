"""What no answer may say, and what none may say twice: looked at in every answer a test's client gets."""

import httpx

# Headers of which a list of lines means the same as one line with commas.
_LISTS = {"vary", "set-cookie", "link", "www-authenticate"}
# The only X- headers there are: everything else of that kind is between nginx and the service, or the store's.
_OURS = {"x-request-id", "x-content-type-options", "x-accel-buffering"}
_SECRETS = ("/_blobs/", "@s3", "x-amz-", "awsaccesskeyid", "/blobs/")


def check_headers(headers: httpx.Headers, status: int) -> None:
    """Fails where a header stands twice, or tells how the bytes are kept."""
    names = [name.lower() for name, _ in headers.multi_items()]
    assert not {name for name in names if names.count(name) > 1} - _LISTS, headers.multi_items()
    assert not {name for name in names if name.startswith("x-")} - _OURS, headers.multi_items()
    for name, value in headers.multi_items():
        if (name.lower(), status) != ("location", 307):
            assert not any(secret in value.lower() for secret in _SECRETS), (name, value)


def watch(response: httpx.Response) -> None:
    """`check_headers` as an event hook of httpx. What the store itself answers after a redirect is its affair."""
    if response.headers.get("x-request-id") or not response.history:
        check_headers(response.headers, response.status_code)
