"""All keys, looked up by the digest of the credential: SHA-256, or HMAC with a pepper.

Known, unknown and imported keys do the same work: one digest and a dictionary look-up, so timing
tells nothing, and nothing grows with the number of keys.

A million keys must neither stop the reactor nor weigh on the garbage collector. So a key is kept as
the bytes of its line, checked when loaded and parsed again when first used, and these are split
over 256 dictionaries by the digest's first byte: none ever takes long to grow, or to free, and as
they hold nothing but bytes the collector passes them by.

With a pepper, keys from before it keep their SHA-256. As long as there is one of them, every
look-up makes both digests, whatever it finds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType

from edgeproxy.identity.keyfile import LONGEST_LINE, KeyFileError, parse_line, wrong_pepper
from edgeproxy.identity.keyrecord import KeyRecord, KeyState
from edgeproxy.identity.pepper import Pepper

__all__ = ["KeyIndex", "KeyRecord", "KeyState", "build", "slices"]

PIECE = 64 * 1024
"""Bytes read at a time: some 300 lines."""

_SHARDS = 256
_AT_ONCE = 1024  # records looked through in one step


class KeyIndex:
    """A set of keys, not changed after it was built, but for what is remembered of their use.

    `last` is when keys were last used, by id, in whole seconds since 1970, as far as it was
    collected; `stale` tells that it was changed since whoever keeps it has set that to False.
    """

    __slots__ = ("_records", "_second", "_shards", "_used", "count", "last", "stale")

    def __init__(self) -> None:
        self.count = 0
        self.last: dict[str, int] = {}
        self.stale = False
        self._used: dict[bytes, KeyRecord] = {}
        # When keys are used, to the second: one number for all uses in it. A number for each would
        # be memory of its own, looked up for each of thousands of callers, and let go of again.
        self._second = 0.0
        self._records: list[KeyRecord] = []  # those in `_used`, which can be run over in steps
        self._shards: list[dict[bytes, bytes]] = [{} for _ in range(_SHARDS)]

    def __len__(self) -> int:
        return self.count

    def find(self, credential: bytes, now: float) -> KeyRecord | None:
        """The record of a key, whatever its state, marked as used in this second; None if unknown.

        `now`: seconds since 1970. The credential may be any bytes.
        """
        digest = sha256(credential).digest()
        record = self._used.get(digest)
        if record is None:
            record = self._first(digest)
            if record is None:
                return None
        if not self._second <= now < self._second + 1.0:
            self._second = now
        record.used = self._second
        return record

    def _first(self, digest: bytes) -> KeyRecord | None:
        """A key that is used for the first time."""
        line = self._shards[digest[0]].get(digest)
        if line is None:
            return None
        record = self._used[digest] = parse_line(line, 0)
        self._records.append(record)
        return record

    def collecting(self, source: KeyIndex) -> Generator[None, None, None]:
        """Take into `last` what is known of the use of keys in `source`, this index itself or one
        before it, in short steps. Keys that are not in this one are forgotten."""
        last, records, shards = self.last, source._records, self._shards
        for start in range(0, len(records), _AT_ONCE):
            for record in records[start : start + _AT_ONCE]:
                when = int(record.used)
                digest = record.digest
                if last.get(record.id, 0) < when and digest in shards[digest[0]]:
                    last[record.id] = when
                    self.stale = True
            yield

    def add(self, record: KeyRecord, line: bytes) -> bool:
        """While it is built: a key and its line. False if the digest is there."""
        digest = record.digest
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
        while self._used or any(self._shards) or self.last:
            for _ in range(min(4096, len(self._used))):
                self._used.popitem()
                self._records.pop()
            for _ in range(min(4096, len(self.last))):
                self.last.popitem()
            for shard in self._shards:
                for _ in range(min(16, len(shard))):
                    shard.popitem()
            yield

    def __repr__(self) -> str:
        return f"<KeyIndex {self.count} keys>"


class PepperedIndex(KeyIndex):
    """Keys with a pepper, and those from before it."""

    __slots__ = ("_pepper", "_plain")

    def __init__(self, pepper: Pepper) -> None:
        super().__init__()
        self._pepper = pepper
        self._plain = 0  # how many keys have their SHA-256

    def find(self, credential: bytes, now: float) -> KeyRecord | None:
        """See `KeyIndex.find`."""
        digest = self._pepper.digest(credential)
        record = self._used.get(digest) or self._first(digest)
        if self._plain:
            digest = sha256(credential).digest()
            other = self._used.get(digest) or self._first(digest)
            record = record or other
        if record is not None:
            if not self._second <= now < self._second + 1.0:
                self._second = now
            record.used = self._second
        return record

    def add(self, record: KeyRecord, line: bytes) -> bool:
        """See `KeyIndex.add`."""
        self._plain += not record.pepper
        return super().add(record, line)


def slices(
    chunks: bytes | Iterable[bytes],
    size: int = 250,
    *,
    pepper: Pepper | None = None,
    last: Mapping[str, int] = MappingProxyType({}),
) -> Generator[KeyIndex | None, None, None]:
    """Build an index in steps of at most `size` lines: None after each, the index at last.

    `chunks`: the file's bytes, whole or in pieces cut anywhere, each taken when it is needed.
    `last`: when keys were last used; what it says of keys that are not in the file is forgotten.
    Raises KeyFileError at the first line that is wrong; there is no index then.
    Measured: 250 lines take 3 ms.
    """
    index = KeyIndex() if pepper is None else PepperedIndex(pepper)
    # Not sets: the collector goes through all that a set holds; dictionaries of text it lets be.
    ids: list[dict[str, None]] = [{} for _ in range(_SHARDS)]
    for number, line in _lines(_pieces(chunks) if isinstance(chunks, bytes) else chunks):
        if line.strip():
            record = parse_line(line, number)
            names = ids[hash(record.id) % _SHARDS]
            if record.id in names:
                raise KeyFileError(number, f"id {record.id} is there twice")
            names[record.id] = None
            if record.pepper and (wrong := wrong_pepper(record, pepper)):
                raise KeyFileError(number, wrong)
            if not index.add(record, line):
                raise KeyFileError(number, f"digest of {record.id} is there twice")
            if record.id in last:
                index.last[record.id] = last[record.id]
        if number % size == 0:
            yield None
    while ids:  # freed at once, those of a million keys would take 50 ms
        del ids[-8:]
        yield None
    index.stale = bool(last)
    yield index


def build(chunks: bytes | Iterable[bytes], pepper: Pepper | None = None) -> KeyIndex:
    """The same in one go, for the start and for commands."""
    built = None
    for built in slices(chunks, pepper=pepper):  # noqa: B007  # the last is the index
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
