"""The command line: one small file for each command, loaded only when it is asked for."""

import importlib
import sys

import typer

from mediasvc.core.errors import MediasvcError

_MODULES = {  # of each command and group of commands, in the order of the help
    "serve": "serve",
    "push": "push",
    "sweep": "maintenance",
    "fsck": "maintenance",
    "keys": "keys",
    "store": "store",
}


def program(word: str = "") -> typer.Typer:
    """The command that the line's first word names; all of them for any other word (help, a misspelling).

    The server and what `push` needs take a second to load: each command pays only for itself.
    """
    app = typer.Typer(
        name="mediasvc",
        help="Self-hosted file upload and streaming media service.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(lambda: None)  # else the only command would not go by its name
    for name in [word] if word in _MODULES else _MODULES:
        module = importlib.import_module(f"mediasvc.cli.{_MODULES[name]}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def run(app: typer.Typer) -> None:
    """Run; an error of ours is one sentence on stderr and rclone's exit code, never a traceback."""
    try:
        app()
    except MediasvcError as error:
        print(f"mediasvc: {error.detail}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
