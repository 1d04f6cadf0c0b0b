"""What an endpoint has said of callers, remembered for a short while, by the SHA-256 of what they
showed. Who is let in and who is not stand in tables of their own, so that no number of guesses
drives out a caller who is known."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

MOST = 16384
"""Callers; at about a kilobyte each."""
MOST_REFUSED = 4096
"""Refusals: what is guessed differs each time, so more would not help."""


class Known(NamedTuple, Generic[T]):
    """A caller who was let in: without another question before `fresh`, and, while nobody can be
    asked, before `stale`. Times are monotonic seconds."""

    answer: T
    fresh: float
    stale: float


class Answers(Generic[T]):
    """See the module's text. `now` is in monotonic seconds."""

    def __init__(self, most: int = MOST, most_refused: int = MOST_REFUSED) -> None:
        self._most = most
        self._most_refused = most_refused
        # A plain dict looks for its first entry behind all that were taken out before it.
        self._known: OrderedDict[bytes, Known[T]] = OrderedDict()
        #: The reason, and until when.
        self._refused: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def refused(self) -> int:
        """How many refusals are remembered."""
        return len(self._refused)

    def known(self, digest: bytes, now: float) -> Known[T] | None:
        """A caller whose answer has not gone stale."""
        found = self._known.get(digest)
        if found is not None and now >= found.stale:
            del self._known[digest]
            return None
        return found

    def refusal(self, digest: bytes, now: float) -> str | None:
        """Why that was refused a moment ago."""
        found = self._refused.get(digest)
        if found is None:
            return None
        if now >= found[1]:
            del self._refused[digest]
            return None
        return found[0]

    def let_in(self, digest: bytes, known: Known[T]) -> None:
        """Remember a caller. The one that was asked about longest ago makes room."""
        self._refused.pop(digest, None)
        self._known.pop(digest, None)
        if len(self._known) >= self._most:
            self._known.popitem(last=False)
        self._known[digest] = known

    def refuse(self, digest: bytes, reason: str, until: float) -> None:
        """Remember a refusal; whoever was let in by the same is not any more."""
        self._known.pop(digest, None)
        self._refused.pop(digest, None)
        if len(self._refused) >= self._most_refused:
            self._refused.popitem(last=False)
        self._refused[digest] = reason, until
