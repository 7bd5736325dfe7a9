"""The command line: one small file for each command."""


def main() -> None: ...
