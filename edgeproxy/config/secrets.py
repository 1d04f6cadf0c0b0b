"""`${env:NAME}`, `${file:PATH}` and `${credential:NAME}` in the values of an upstream's `set`.

A value that cannot be found is an error, never an empty text. What was put in is never part of a
message. `$${` stands for `${` itself.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeproxy.config.units import shown

#: (kind, name) -> the secret; raises `ValueError` with the reason when it cannot be found.
Lookup = Callable[[str, str], str]

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\})?")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CREDENTIAL_NAME = re.compile(r"[A-Za-z0-9_.@:-]{1,255}", re.ASCII)
_LARGEST = 64 << 10  # bytes: no token is longer
_FORMS = "${env:NAME}, ${file:PATH} and ${credential:NAME} are right"


def expand(text: str, lookup: Lookup) -> str:
    """`text` with every reference put in. Raises `ValueError` naming all that failed."""
    failed: list[str] = []

    def put_in(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        kind, colon, name = found[1].partition(":")
        if not found[2] or not colon or not name or kind not in ("env", "file", "credential"):
            failed.append(f"{shown(found[0])} is not a reference; {_FORMS}")
            return ""
        try:
            secret = lookup(kind, name)
        except ValueError as error:
            failed.append(str(error))
            return ""
        if not secret:
            failed.append(f"{shown(found[0])} is empty; give it a value")
        return secret

    result = _REFERENCE.sub(put_in, text)
    if failed:
        raise ValueError("; ".join(failed))
    return result


class Secrets:
    """The lookup for one configuration file.

    Relative paths are relative to `folder`; credentials are those that systemd passes in
    `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential).
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ

    def __call__(self, kind: str, name: str) -> str:
        if kind == "env":
            return self._variable(name)
        if kind == "file":
            return _file(self._folder / name, f"${{file:{name}}}")
        return self._credential(name)

    def _variable(self, name: str) -> str:
        if not _ENVIRONMENT_NAME.fullmatch(name):
            raise ValueError(f"{shown(name)} is not the name of a variable; write it as TOKEN")
        if name not in self._environ:
            raise ValueError(f"the environment variable {name} is not set; set it before the start")
        return self._environ[name]

    def _credential(self, name: str) -> str:
        if not _CREDENTIAL_NAME.fullmatch(name) or name in (".", ".."):
            raise ValueError(f"{shown(name)} is not the name of a credential; write it as token")
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ValueError(
                f"no credential {name}: $CREDENTIALS_DIRECTORY is not set; "
                f"the systemd unit needs LoadCredential={name}:…"
            )
        return _file(Path(folder) / name, f"${{credential:{name}}}")


def _file(path: Path, reference: str) -> str:
    """The text of a small regular file, without the line end that editors leave."""
    try:
        data = read_regular(path, _LARGEST)
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{shown(reference)} is not text in UTF-8") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown(reference)} cannot be read: {reason(error)}") from None
    return text.removesuffix("\n").removesuffix("\r")


def read_regular(path: Path, largest: int) -> bytes:
    """The bytes of a regular file of at most `largest` bytes.

    Raises `OSError`, or `ValueError` saying why it is not such a file. A FIFO is not waited for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(largest + 1)
    finally:
        os.close(descriptor)
    if len(data) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    return data


def reason(error: OSError | ValueError) -> str:
    """Why a file could not be read, in a few words."""
    if isinstance(error, OSError):
        return (error.strerror or "it cannot be opened").lower()
    return "its name cannot be a path" if "null byte" in str(error) else str(error)
