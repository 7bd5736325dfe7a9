"""The installed command `mediasvc`, and `python -m mediasvc`."""

import gc

# The imports make half a million objects that all stay: looking for garbage among them, again and again, is a
# fifth of the time to start (measured). What is there afterwards is never looked at again.
gc.disable()
from mediasvc.cli import main  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    main()
