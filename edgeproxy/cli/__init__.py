"""The ``edgeproxy`` command. ``main`` is its entry point; each group of commands has a module."""

from edgeproxy.cli.main import main

__all__ = ["main"]
