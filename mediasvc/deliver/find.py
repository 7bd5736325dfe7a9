"""Look up what a URL asks for, and whether whoever asks may have it: by key, by link, or because it is public."""

from collections.abc import Mapping

from mediasvc.catalogue.interface import Catalogue, Source
from mediasvc.core.access import Caller
from mediasvc.core.errors import (
    BadKey,
    Forbidden,
    MediasvcError,
    NotFound,
    RenditionPending,
    Unauthorised,
    UploadIncomplete,
)
from mediasvc.core.ids import well_formed
from mediasvc.core.keys import decode_path, normalise_key
from mediasvc.core.link import Link
from mediasvc.core.recipe import EXTENSIONS, PRESETS
from mediasvc.core.signing import Signer
from mediasvc.core.value import value
from mediasvc.deliver.links import Claim, Terms, bad_link

# A JPEG cannot keep alpha: until it is made, a preset that prefers JPEG may still turn out as WebP.
_POSSIBLE_EXTENSIONS: Mapping[str, frozenset[str]] = {
    preset.name: frozenset((preset.ext, "webp")) for preset in PRESETS
}
_NOT_FOUND = "there is nothing here"


@value
class ByKey:
    """`/b/{bucket}/{key}`, both as they stand in the URL: percent-encoded."""

    bucket: bytes
    key: bytes


@value
class ById:
    """`/f/{id}/{name}`; the name is cosmetic."""

    asset_id: bytes


@value
class OfPreset:
    """`/i/{preset}/{id}.{ext}`."""

    preset: bytes
    asset_id: bytes
    ext: bytes


Target = ByKey | ById | OfPreset


async def find(catalogue: Catalogue, target: Target, caller: Caller) -> Source:
    """The bytes, once the caller may have them."""
    match target:
        case ByKey():
            return await _find_by_key(catalogue, target, caller)
        case ById():
            source = await _original(catalogue, target.asset_id)
            if source is None:
                raise await _why_not_there(catalogue, target.asset_id, caller)
        case OfPreset():
            source = await _rendition(catalogue, target)
            if source is None:
                raise await _why_not_made(catalogue, target, caller)
            if EXTENSIONS.get(source.media_type, "").encode() != target.ext:
                _allow(caller, source.bucket, source.key, public=source.public)
                raise NotFound(_NOT_FOUND)
    _allow(caller, source.bucket, source.key, public=source.public)
    return source


async def find_linked(
    catalogue: Catalogue, target: Target, claim: Claim, signer: Signer
) -> tuple[Source, Link | None]:
    """The bytes, if the link was made for just these, and its row if it has one; anybody else learns nothing."""
    recipe = ext = ""
    match target:
        case ByKey():
            raise bad_link()
        case ById(raw_id):
            source = found = await _original(catalogue, raw_id)
        case OfPreset(preset, raw_id, raw_ext):
            recipe, ext = preset.decode("latin-1"), raw_ext.decode("latin-1")
            if recipe not in _POSSIBLE_EXTENSIONS:
                raise bad_link()
            source = await _rendition(catalogue, target)
            found = source or await _original(catalogue, raw_id)  # it may not be made yet
    asset_id = raw_id.decode("latin-1")
    terms = Terms(asset_id, claim.expires_at, recipe, ext, claim.disposition, claim.link_id)
    # Where there is no asset the signature is looked at all the same: the time must not tell.
    if not terms.signed_by(signer, found.link_epoch if found else -1, claim.key_id, claim.signature):
        raise bad_link()
    link = await catalogue.link(claim.link_id) if claim.link_id else None
    if found is None or (claim.link_id and link is None):
        raise bad_link()
    if source is None and isinstance(target, OfPreset):
        raise await _why_not_made(catalogue, target, None)
    if source is None or (recipe and EXTENSIONS.get(source.media_type) != ext):
        raise NotFound(_NOT_FOUND)
    return source, link


async def _find_by_key(catalogue: Catalogue, target: ByKey, caller: Caller) -> Source:
    bucket = target.bucket.decode("latin-1")  # a name with anything but ASCII in it is simply not found
    try:
        source = await catalogue.source_at(bucket, normalise_key(decode_path(target.key)))
    except BadKey:
        if caller.anonymous and not await _is_public(catalogue, bucket):
            raise _nothing_for(caller) from None
        raise
    if source is None:
        if caller.anonymous and await _is_public(catalogue, bucket):
            raise NotFound(_NOT_FOUND)
        raise _nothing_for(caller)
    _allow(caller, source.bucket, source.key, public=source.public)
    return source


async def _original(catalogue: Catalogue, raw_id: bytes) -> Source | None:
    asset_id = raw_id.decode("latin-1")
    return await catalogue.source(asset_id) if well_formed("ast", asset_id) else None


async def _rendition(catalogue: Catalogue, target: OfPreset) -> Source | None:
    asset_id, preset = target.asset_id.decode("latin-1"), target.preset.decode("latin-1")
    known = preset in _POSSIBLE_EXTENSIONS and well_formed("ast", asset_id)
    return await catalogue.source(asset_id, preset) if known else None


async def _why_not_made(
    catalogue: Catalogue, target: OfPreset, caller: Caller | None
) -> NotFound | Unauthorised | Forbidden:
    """Why there is no such rendition: not made yet, never will be, or not for this caller to know (None: a link's)."""
    asset_id, preset = target.asset_id.decode("latin-1"), target.preset.decode("latin-1")
    asset = await catalogue.asset(asset_id) if well_formed("ast", asset_id) else None
    if asset is None:
        return _nothing_for(caller) if caller else NotFound(_NOT_FOUND)
    if caller is not None:
        _allow(caller, asset.bucket, asset.key, public=await _is_public(catalogue, asset.bucket))
    possible = target.ext.decode("latin-1") in _POSSIBLE_EXTENSIONS.get(preset, ())
    # "Ready" with the rendition: it was published between the two reads, so the next try finds it.
    if possible and (asset.state == "processing" or preset in asset.renditions):
        return RenditionPending(f"{preset} is being made; ask again in a second")
    return NotFound(_NOT_FOUND)


async def _why_not_there(catalogue: Catalogue, raw_id: bytes, caller: Caller) -> MediasvcError:
    """An asset may be promised by an upload that is not complete yet."""
    asset_id = raw_id.decode("latin-1")
    upload = await catalogue.promised(asset_id) if well_formed("ast", asset_id) else None
    if upload is not None:
        _allow(caller, upload.bucket, upload.key, public=await _is_public(catalogue, upload.bucket))
        return UploadIncomplete("its upload is not complete yet; ask again later")
    return _nothing_for(caller)


async def _is_public(catalogue: Catalogue, bucket: str) -> bool:
    found = await catalogue.bucket(bucket)
    return found is not None and found.public


def _allow(caller: Caller, bucket: str, key: str, *, public: bool) -> None:
    if public:
        return
    if not caller.sees(bucket, key):
        raise _nothing_for(caller)
    if not caller.has("assets:read"):
        raise Forbidden("the key lacks the scope assets:read")


def _nothing_for(caller: Caller) -> NotFound | Unauthorised:
    """Nobody without a key learns whether something exists."""
    if caller.anonymous:
        return Unauthorised("send an API key: Authorization: Bearer msk_…, or as the password of Basic")
    return NotFound(_NOT_FOUND)
