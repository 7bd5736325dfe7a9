"""Prepare an S3 service for us: the store's bucket, and the rule that aborts what an upload left unfinished."""

import os
from dataclasses import dataclass

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.credentials.providers import AWSConfigProvider, ChainedProvider, EnvAWSProvider
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, LifecycleConfig, Rule

from mediasvc.core.errors import StartupRefused, StoreUnavailable
from mediasvc.store.url import S3Url

STALE_DAYS = 30  # longer than any upload is kept unfinished
RULE_ID = "mediasvc-abort-stale-uploads"

_NO_LIFECYCLE = {"NotImplemented", "MethodNotAllowed", "NotSupported", "XNotImplemented"}
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidTokenId", "ExpiredToken"}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found and done, a sentence a line; `complete` where nothing is missing."""

    lines: tuple[str, ...]
    complete: bool


def init(url: S3Url) -> Report:
    """Make what is missing and leave the rest alone; may be run as often as one likes.

    Raises StartupRefused where the store says no, StoreUnavailable where it does not answer.
    """
    try:
        client = _connect(url)
        bucket = _make_bucket(client, url)
        rule, complete = _set_rule(client, url)
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
    return Report((bucket, rule), complete)


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
        if error.code in _NO_LIFECYCLE or error.response.status == 501:
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
