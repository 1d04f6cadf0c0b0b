"""Reading a configuration: the one place of `config` that opens files.

load(Path("edgeproxy.yaml"))  ->  Config, or ConfigError with every problem at once
"""

import glob
import os
from collections.abc import Mapping
from pathlib import Path

from edgeproxy.config.assemble import Source, assemble
from edgeproxy.config.model import Config
from edgeproxy.config.nodes import Node, read
from edgeproxy.config.problems import ConfigError, Problem, Suggestions
from edgeproxy.config.reading import Reader
from edgeproxy.config.secrets import Secrets, read_regular, reason
from edgeproxy.config.syntax import Unreadable, position
from edgeproxy.config.units import shown

LARGEST = 16 << 20  # bytes, of all files together: 5,000 routes take 1 MiB
MOST_FILES = 10_000


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in the file `path` and the files that it includes.

    `environ` (the process's by default) is where `${env:…}` looks. Raises `ConfigError`, and
    nothing else, whatever the files hold.
    """
    loading = _Loading(os.environ if environ is None else environ)
    text = loading.text(path, str(path))
    source = Path(os.path.abspath(path))
    return loading.config(text, str(path), source.parent, source)


def parse(
    text: str,
    file: str = "edgeproxy.yaml",
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """As `load`, for text that did not come from a file; relative paths start at `folder`."""
    loading = _Loading(os.environ if environ is None else environ)
    return loading.config(text, file, folder or Path.cwd(), None)


class _Loading:
    """One load: problems of all files, and what is left of the bound on their size."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[Problem] = []
        self._suggestions = Suggestions()
        self._left = LARGEST
        self._complete = True

    def config(self, text: str | None, file: str, folder: Path, source: Path | None) -> Config:
        main = self._source(text, file, folder)
        if main is None:
            raise ConfigError(self._problems)
        sources = [main, *self._included(main, folder, source)]
        config = assemble(sources, folder, source, self._complete)
        for each in sources:
            self._problems += each.reader.problems
        if self._problems:
            order = {each.file: number for number, each in enumerate(sources)}
            self._problems.sort(key=lambda p: (order.get(p.file, 0), p.line, p.column))
            raise ConfigError(dict.fromkeys(self._problems))
        return config

    def text(self, path: Path, shown_as: str) -> str | None:
        """The text of a file, or `None` after reporting why there is none."""
        try:
            data = read_regular(path, self._left)
        except (OSError, ValueError) as error:
            why = reason(error)
            hint = "; `edgeproxy init` writes one" if isinstance(error, FileNotFoundError) else ""
            self._problems.append(Problem(shown_as, 1, 1, f"cannot be read: {why}{hint}"))
            return None
        return self._decoded(data, shown_as)

    def _decoded(self, data: bytes, shown_as: str) -> str | None:
        self._left -= len(data)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            line, column = position(data[: error.start].decode("utf-8"), error.start)
            message = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file in UTF-8"
            self._problems.append(Problem(shown_as, line, column, message))
            return None

    def _source(self, text: str | None, file: str, folder: Path) -> Source | None:
        if text is None:
            self._complete = False
            return None
        try:
            root, problems = read(text, file)
        except Unreadable as error:
            self._complete = False
            self._problems.append(error.problem)
            return None
        self._problems += problems
        secrets = Secrets(folder, self._environ)
        return Source(file, root, Reader(file, self._suggestions, secrets, folder))

    def _included(self, main: Source, folder: Path, source: Path | None) -> list[Source]:
        node = main.root.get("include")
        patterns = node.items if node and node.items is not None else [node] if node else []
        seen = {os.path.realpath(source)} if source else set()
        found = []
        for pattern in patterns:
            if not isinstance(pattern.scalar, str) or not pattern.scalar:
                continue  # reported with the other settings
            for path in self._matching(main, pattern, folder):
                real = os.path.realpath(path)
                if source and real == os.path.realpath(source):
                    main.reader.add(pattern, "this includes the file itself; narrow the pattern")
                elif real not in seen:
                    seen.add(real)
                    found.append(self._include(main, pattern, path, folder))
        return [each for each in found if each is not None]

    def _include(self, main: Source, pattern: Node, path: Path, folder: Path) -> Source | None:
        try:
            data = read_regular(path, self._left)
        except (OSError, ValueError) as error:
            name = os.path.relpath(path, folder)
            main.reader.add(pattern, f"{shown(name)} cannot be read: {reason(error)}")
            return self._source(None, str(path), path.parent)
        return self._source(self._decoded(data, str(path)), str(path), path.parent)

    def _matching(self, main: Source, pattern: Node, folder: Path) -> list[Path]:
        written = str(pattern.scalar)
        if "\0" in written:
            return []
        if not glob.has_magic(written):
            return [folder / written]
        try:
            names = sorted(glob.glob(os.path.join(glob.escape(str(folder)), written)))
        except (OSError, ValueError, RecursionError):
            names = []
        if len(names) > MOST_FILES:
            main.reader.add(pattern, f"this matches more than {MOST_FILES} files; narrow it")
            return []
        return [Path(name) for name in names]
