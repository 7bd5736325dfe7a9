"""The command line: one small file for each command."""

import sys

import typer

from mediasvc.cli import keys, maintenance, push, serve, store
from mediasvc.core.errors import MediasvcError

app = typer.Typer(
    name="mediasvc",
    help="Self-hosted file upload and streaming media service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(push.push)
app.command()(maintenance.sweep)
app.command()(maintenance.fsck)
app.add_typer(keys.app, name="keys")
app.add_typer(store.app, name="store")


def main() -> None:
    """Run; an error of ours is one sentence on stderr and rclone's exit code, never a traceback."""
    try:
        app()
    except MediasvcError as error:
        print(f"mediasvc: {error.detail}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
