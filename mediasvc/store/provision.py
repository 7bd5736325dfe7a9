"""Prepare an S3 service for us: the store's bucket, the rule that aborts what an upload left unfinished, and who may
call it from a browser."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.credentials.providers import AWSConfigProvider, ChainedProvider, EnvAWSProvider
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, LifecycleConfig, Rule

from mediasvc.core.errors import StartupRefused, StoreUnavailable
from mediasvc.store.s3_client import S3Client, StoreAway, StoreRefused
from mediasvc.store.url import S3Url

STALE_DAYS = 30  # longer than any upload is kept unfinished
RULE_ID = "mediasvc-abort-stale-uploads"
CORS_ID = "mediasvc-direct-uploads"

_NOT_THERE = {"NotImplemented", "MethodNotAllowed", "NotSupported", "XNotImplemented"}
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidTokenId", "ExpiredToken"}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found and done, a sentence a line; `complete` where nothing is missing."""

    lines: tuple[str, ...]
    complete: bool


def init(url: S3Url, origins: Sequence[str] = ("*",)) -> Report:
    """Make what is missing and leave the rest alone; may be run as often as one likes. `origins`: who may call the
    store from a browser.

    Raises StartupRefused where the store says no, StoreUnavailable where it does not answer.
    """
    try:
        client = _connect(url)
        bucket = _make_bucket(client, url)
        rule, complete = _set_rule(client, url)
        cors, open_to_browsers = _set_cors(url, origins)
    except StoreRefused as refusal:
        raise StartupRefused(_advice(url, refusal.code)) from refusal
    except StoreAway as away:
        raise StoreUnavailable(f"the store at {url.address} does not answer") from away
    except S3Error as error:
        raise StartupRefused(_advice(url, error.code or "no reason given")) from error
    except urllib3.exceptions.MaxRetryError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error.reason):
            raise StartupRefused(
                f"the certificate of the store at {url.address} is not trusted: "
                "set AWS_CA_BUNDLE to its authority's file"
            ) from error
        raise StoreUnavailable(f"the store at {url.address} does not answer") from error
    except (urllib3.exceptions.HTTPError, InvalidResponseError, ServerError) as error:
        raise StoreUnavailable(f"the store at {url.address} does not answer as S3 does") from error
    return Report((bucket, rule, cors), complete and open_to_browsers)


def _connect(url: S3Url) -> Minio:
    credentials = ChainedProvider([EnvAWSProvider(), AWSConfigProvider()])
    try:
        credentials.retrieve()
    except ValueError:
        raise StartupRefused(
            f"the store at {url.address} needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    endpoint = (url.endpoint or "https://s3.amazonaws.com").partition("://")[2]
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=4, read=10),
        retries=urllib3.Retry(total=2, backoff_factor=0.2),
        ca_certs=os.environ.get("AWS_CA_BUNDLE"),
    )
    return Minio(endpoint, credentials=credentials, region=url.region, secure=url.encrypted, http_client=pool)


def _make_bucket(client: Minio, url: S3Url) -> str:
    if client.bucket_exists(bucket_name=url.bucket):
        return f"The store's bucket {url.bucket} is there."
    try:
        client.make_bucket(bucket_name=url.bucket, location=url.region)
    except S3Error as error:
        if error.code != "BucketAlreadyOwnedByYou":  # another init was faster
            raise
    return f"The store's bucket {url.bucket} has been made."


def _set_rule(client: Minio, url: S3Url) -> tuple[str, bool]:
    """The rule, beside the rules that are there. Gives a sentence, and whether all is well."""
    try:
        present = client.get_bucket_lifecycle(bucket_name=url.bucket)
        rules = list(present.rules) if present else []
        if any(_aborts_all(rule) for rule in rules):
            return "A rule that aborts stale multipart uploads is there.", True
        kept = [rule for rule in rules if rule.rule_id != RULE_ID]
        client.set_bucket_lifecycle(bucket_name=url.bucket, config=LifecycleConfig([*kept, _rule()]))
    except S3Error as error:
        if error.code in _NOT_THERE or error.response.status == 501:
            why = "this store has no lifecycle rules"
        elif error.code == "AccessDenied":
            why = "these credentials may not set lifecycle rules"
        else:
            raise
        return (
            f"No rule aborts stale multipart uploads, because {why}: all else works, `mediasvc sweep` removes "
            "what its own uploads left, and what other programs leave in this bucket stays.",
            False,
        )
    return f"A rule now aborts multipart uploads that are {STALE_DAYS} days old.", True


def _set_cors(url: S3Url, origins: Sequence[str]) -> tuple[str, bool]:
    """Our rule, beside those that are there: for parts that browsers send and downloads that they read. Gives a
    sentence, and whether all is well. By boto3: the minio SDK has no CORS."""
    with closing(S3Client(url)) as client:
        present = _cors_rules(client)
        wanted = _cors_rule(origins)
        if any(_same(rule, wanted) for rule in present):
            return "The rule for browsers (CORS) is there.", True
        kept = [rule for rule in present if rule.get("ID") != CORS_ID]
        try:
            client.call("put_bucket_cors", CORSConfiguration={"CORSRules": [*kept, wanted]})
        except StoreRefused as refusal:
            if refusal.code in _NOT_THERE or refusal.status == 501:
                # Such a store often lets everybody in; what it does is not ours to say.
                return (
                    "This store has no rules for browsers (CORS): see to it that it lets them PUT and read ETag, if "
                    "uploads are to go straight to it.",
                    True,
                )
            if refusal.code != "AccessDenied":
                raise
            return "These credentials may not set rules for browsers (CORS): all else works.", False
    return f"Browsers may now call the store from {', '.join(origins)} (CORS).", True


def _cors_rules(client: S3Client) -> list[Mapping[str, Any]]:
    try:
        return list(client.call("get_bucket_cors")["CORSRules"])
    except StoreRefused as refusal:
        known = refusal.code in {"NoSuchCORSConfiguration", "AccessDenied", *_NOT_THERE}
        if known or refusal.status == 501:
            return []
        raise


def _cors_rule(origins: Sequence[str]) -> Mapping[str, Any]:
    return {
        "ID": CORS_ID,
        "AllowedOrigins": list(origins),
        "AllowedMethods": ["GET", "PUT", "POST", "HEAD"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 86400,
    }


def _same(rule: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whatever the order, which some stores do not keep."""
    lists = ("AllowedOrigins", "AllowedMethods", "AllowedHeaders", "ExposeHeaders")
    return all(set(rule.get(name, ())) == set(wanted[name]) for name in lists)


def _rule() -> Rule:
    return Rule(
        status=ENABLED,
        rule_filter=Filter(prefix=""),
        rule_id=RULE_ID,
        abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(days_after_initiation=STALE_DAYS),
    )


def _aborts_all(rule: Rule) -> bool:
    """Whether a rule that is there, ours or another, already does what ours would, for every key."""
    abort = rule.abort_incomplete_multipart_upload
    days = abort.days_after_initiation if abort else None
    chosen = rule.rule_filter
    everything = chosen is None or (chosen.tag is None and chosen.and_operator is None and not chosen.prefix)
    return rule.status == ENABLED and everything and days is not None and days <= STALE_DAYS


def _advice(url: S3Url, code: str) -> str:
    if code in _WRONG_KEYS:
        return (
            f"the store at {url.address} does not accept the credentials ({code}): "
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if code == "AccessDenied":  # a HEAD does not say more
        return (
            f"the store at {url.address} does not let us look at or make bucket {url.bucket}: "
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do"
        )
    return f"the store at {url.address} refuses to prepare bucket {url.bucket} ({code}): check MEDIASVC_STORE_URL"
