"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where everything embedded lives (MEDIASVC_DATA_DIR; ./mediasvc-data)"),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout")]
