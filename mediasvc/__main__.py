"""The installed command `mediasvc`, and `python -m mediasvc`."""

import gc
import sys


def main() -> None:
    # The imports make half a million objects that all stay: looking for garbage among them, again and again, is a
    # fifth of the time to start (measured). What is there afterwards is never looked at again.
    gc.disable()
    from mediasvc import cli

    app = cli.program(*sys.argv[1:2])
    gc.freeze()
    gc.enable()
    cli.run(app)


if __name__ == "__main__":
    main()
