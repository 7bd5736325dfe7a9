"""Routes whose last part is anything at all: Starlette's own `path` stops at a line break."""

from starlette.convertors import Convertor, register_url_convertor


class _Anything(Convertor[str]):
    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())  # Starlette knows convertors by name only

NAMED = "/b/{bucket}/{key:anything}"
DROPPED = "/u/{name:anything}"
BY_ID = "/f/{asset_id}/{name:anything}"
RENDITION = "/i/{preset}/{asset_id}.{ext}"
UPLOADS = "/v1/uploads"
UPLOAD = "/v1/uploads/{upload_id}"
ARCHIVE = "/z/{archive_id}/{name:anything}"
WATCHED = ("/healthz", "/readyz", "/metrics")  # by monitoring, which must never be turned away
