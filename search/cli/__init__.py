"""The command line: ``app`` has the commands, each of which calls ``search.commands``."""

from search.cli.app import main

__all__ = ["main"]
