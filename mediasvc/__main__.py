"""`python -m mediasvc`."""

from mediasvc.cli import main

if __name__ == "__main__":
    main()
