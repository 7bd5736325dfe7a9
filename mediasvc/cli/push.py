"""`mediasvc push`: files and folders into a bucket; what is already there is not sent again."""

import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import stamina.instrumentation
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from mediasvc.cli.local_files import LocalFile, Unsendable, find_files, shown
from mediasvc.cli.options import DataDir, Json
from mediasvc.cli.remote import Away, Refused, Remote
from mediasvc.cli.transfer import Outcome, transfer
from mediasvc.core.errors import BadBucket, BadKey
from mediasvc.core.keys import check_bucket_name, normalise_key


def push(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files, and folders with all they hold.")
    ],
    to: Annotated[str, typer.Option(metavar="BUCKET[/PREFIX]", help="Where the files go.")],
    server: Annotated[
        str, typer.Option(envvar="MEDIASVC_SERVER", help="The server's address.")
    ] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None,
        typer.Option(envvar="MEDIASVC_KEY", help="A key; else <data-dir>/admin.key.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    concurrency: Annotated[
        int, typer.Option("-c", "--concurrency", min=1, max=64, help="Uploads at once.")
    ] = 4,
    retries: Annotated[int, typer.Option(min=0, help="How often to try again when the server is away.")] = 5,
    json_lines: Json = False,
) -> None:
    """Push files into a bucket; run it again to resume.

    A file's key is the prefix, a slash, and its path below the PATH given, as with `rclone copy`.
    """
    bucket, prefix = _destination(to)
    for path in paths:
        if not os.path.lexists(path):
            _give_up(f"{shown(path)} does not exist", 3 if path.endswith("/") else 4)
    if not server.startswith(("http://", "https://")):
        _give_up(f"{server} is not an address; give one such as http://127.0.0.1:8000", 2)
    secret = _secret(key, data_dir)
    # stamina's own hooks would log to stdout, where the results go.
    stamina.instrumentation.set_on_retry_hooks([_tell_of_retry])
    counted: Counter[str] = Counter()
    codes: set[int] = set()
    trouble: str | None = None
    with (
        Remote(server, secret, connections=concurrency, retries=retries) as remote,
        _progress() as (expect, sent),
    ):
        try:
            found = _counting(find_files(paths, prefix), counted, expect)
            for outcome in transfer(found, bucket, remote, concurrency=concurrency, sent=sent):
                counted[outcome.status] += 1
                if outcome.status == "failed":
                    codes.add(outcome.exit_code)
                _tell(outcome, bucket, json_lines)
        except KeyboardInterrupt:
            trouble, codes = "interrupted", {130}
        except Away as error:
            trouble, codes = str(error), {error.exit_code}
        except Refused as error:
            trouble, codes = str(error), {error.exit_code}
            if error.status == 401:
                trouble = f"{server} does not know this key; give one with --key or MEDIASVC_KEY"
    print(_summary(counted, trouble), file=sys.stderr if json_lines or trouble else sys.stdout)
    if trouble or (len(codes) == 1 and not counted["pushed"] + counted["present"]):
        raise typer.Exit(codes.pop())
    if codes:
        raise typer.Exit(6 if counted["pushed"] + counted["present"] else 1)


def _give_up(sentence: str, exit_code: int) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise typer.Exit(exit_code)


def _destination(to: str) -> tuple[str, str]:
    bucket, _, prefix = to.partition("/")
    prefix = prefix.rstrip("/")
    try:
        return check_bucket_name(bucket), normalise_key(prefix) if prefix else ""
    except (BadBucket, BadKey) as error:
        _give_up(f"--to {to!r}: {error.detail}", 2)


def _secret(key: str | None, data_dir: Path | None) -> str:
    if key is None:
        folder = data_dir or Path(os.environ.get("MEDIASVC_DATA_DIR") or "mediasvc-data")
        try:
            key = (folder.expanduser() / "admin.key").read_text()
        except (OSError, ValueError):
            _give_up(f"no key: give one with --key or MEDIASVC_KEY ({folder}/admin.key cannot be read)", 2)
    secret = key.strip()
    if not (secret.isascii() and secret.isprintable() and secret):
        _give_up("the key is not one: keys are plain ASCII and begin with msk_", 2)
    return secret


def _counting(
    found: Iterable[LocalFile | Unsendable], counted: Counter[str], expect: Callable[[int], object]
) -> Iterator[LocalFile | Unsendable]:
    for file in found:
        if isinstance(file, LocalFile) or not file.skipped:
            counted["found"] += 1
        if isinstance(file, LocalFile):
            expect(file.size)
        yield file


def _tell(outcome: Outcome, bucket: str, json_lines: bool) -> None:
    if json_lines:
        told = {k: v for k, v in dataclasses.asdict(outcome).items() if v is not None and k != "exit_code"}
        print(json.dumps({**told, "bucket": bucket}, ensure_ascii=False), flush=True)
    elif outcome.status == "pushed":
        print(f"pushed {outcome.path} {outcome.url or ''}".rstrip(), flush=True)
    elif outcome.status in ("failed", "skipped"):
        print(f"{outcome.status} {outcome.path}: {outcome.error}", file=sys.stderr)


def _tell_of_retry(details: stamina.instrumentation.RetryDetails) -> None:
    print(
        f"{details.caused_by or type(details.caused_by).__name__}: trying again in {details.wait_for:.1f} s",
        file=sys.stderr,
    )


def _summary(counted: Counter[str], trouble: str | None) -> str:
    text = f"{counted['pushed']} of {counted['found']} pushed"
    if counted["present"]:
        text += f", {counted['present']} already there"
    if counted["failed"]:
        text += f", {counted['failed']} failed (listed above)"
    if trouble:
        text = f"{trouble}: {text}"
    return f"{text}; run the same command again to resume" if trouble or counted["failed"] else text


@contextmanager
def _progress() -> Iterator[tuple[Callable[[int], object], Callable[[int], object]]]:
    """A bar of bytes on stderr where a person is looking; gives what to call with bytes expected and sent."""
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # results that are piped must not end up around the bar
    )
    task = bar.add_task("push", total=0)
    total = 0

    def expect(size: int) -> None:
        nonlocal total
        total += size
        bar.update(task, total=total)

    with bar:
        yield expect, lambda size: bar.advance(task, size)
