"""The files of an upstream's `tls`: read with the configuration, so that a reload reads them anew,
and so that what is wrong with one has its line and column."""

from pathlib import Path

from pydantic import SecretBytes

from edgeproxy.certs.pem import Content, read_content
from edgeproxy.config.model import UpstreamTls
from edgeproxy.config.nodes import Node
from edgeproxy.config.reading import Reader
from edgeproxy.config.secrets import read_regular, reason
from edgeproxy.config.units import shown
from edgeproxy.config.written import UpstreamForm

_LARGEST = 4 << 20  # bytes of one file: Debian's bundle of all authorities has 220 KB


def upstream_tls(reader: Reader, node: Node, form: UpstreamForm) -> UpstreamTls | None:
    """What the targets of an upstream are spoken to with; `None` where none is `https://`.

    What is wrong is reported; the result is of use only when nothing was.
    """
    said = form.tls
    if all(each.url.scheme != "https" for each in form.targets):
        if said is not None:
            reader.at(
                node,
                ("tls", "[key]"),
                "no target of this upstream is https://; write one so, or remove `tls`",
            )
        return None
    if said is None:
        return UpstreamTls()
    if not said.verify and said.ca is not None:
        reader.at(node, ("tls", "ca"), "`verify: false` looks at no `ca`; remove one of both")
    if said.key is not None and said.certificate is None:
        reader.at(node, ("tls", "key"), "a key needs its certificate; add `certificate`")
    files = _Files(reader, node)
    ca = None if said.ca is None else files.authorities(said.ca)
    certificate = key = None
    if said.certificate is not None:
        certificate, key = files.pair(said.certificate, said.key)
    return UpstreamTls(
        ca=ca,
        name=said.name,
        certificate=certificate,
        key=None if key is None else SecretBytes(key),
        verify=said.verify,
    )


class _Files:
    """Reads the files, and reports what is wrong with them at the settings that name them."""

    def __init__(self, reader: Reader, node: Node) -> None:
        self._reader = reader
        self._node = node

    def authorities(self, path: Path) -> bytes | None:
        content = self._read("ca", path)
        if content is None:
            return None
        if not content.certificates:
            self._wrong("ca", path, "holds no certificate; PEM would be right")
        return b"".join(each.pem for each in content.certificates)

    def pair(self, path: Path, key_path: Path | None) -> tuple[bytes | None, bytes | None]:
        """The chain and its key, which may stand in one file."""
        content = self._read("certificate", path)
        if content is not None and not content.certificates:
            self._wrong("certificate", path, "holds no certificate; PEM would be right")
            content = None
        named = "certificate" if key_path is None else "key"
        keys = content if key_path is None else self._read("key", key_path)
        if content is None or keys is None:
            return None, None
        leaf = content.certificates[0]
        found = next((key for key in keys.keys if key.public_key == leaf.public_key), None)
        if found is None:
            if not keys.keys:
                right = "add `key`" if key_path is None else "PEM would be right"
                hint = f"holds no private key; {right}"
            else:
                hint = f"holds no key of the first certificate, which is for {leaf.label}"
            self._wrong(named, key_path or path, hint)
            return None, None
        return b"".join(each.pem for each in content.certificates), found.pem

    def _read(self, setting: str, path: Path) -> Content | None:
        try:
            data = read_regular(self._reader.folder / path, _LARGEST)
        except (OSError, ValueError) as error:
            self._wrong(setting, path, f"cannot be read: {reason(error)}")
            return None
        content = read_content(data)
        for problem in content.problems[:1]:
            self._wrong(setting, path, problem)
            return None
        return content

    def _wrong(self, setting: str, path: Path, what: str) -> None:
        separator = " " if what.startswith(("holds", "cannot")) else ": "
        self._reader.at(self._node, ("tls", setting), f"{shown(str(path))}{separator}{what}")
