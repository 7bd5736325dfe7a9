"""`mediasvc store init`: make the store's bucket and its rules."""

import importlib
import sys

import typer

from mediasvc import settings
from mediasvc.store.url import parse_s3_url

app = typer.Typer(help="Prepare the S3-compatible store.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `init` a command of its own name."""


@app.command()
def init() -> None:
    """Make the store's bucket, the rule that aborts stale multipart uploads, and its CORS; says what it cannot do."""
    chosen = settings.read()
    if not chosen.store.startswith("s3:"):
        print("a store on disk needs no preparation; set MEDIASVC_STORE_URL=s3://…", file=sys.stderr)
        raise typer.Exit(2)
    provision = importlib.import_module("mediasvc.store.provision")  # the SDK is this command's alone
    report = provision.init(parse_s3_url(chosen.store), chosen.allowed_origins)
    for line in report.lines:
        print(line)
    if not report.complete:
        raise typer.Exit(1)
