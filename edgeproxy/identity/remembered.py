"""Tokens that were verified, so that each pays for its signature once."""

from __future__ import annotations

from collections import OrderedDict

from edgeproxy.identity.jwk import Key
from edgeproxy.identity.principal import Principal

MOST = 16384
"""Tokens; at about a kilobyte each. Envoy's jwt_cache_config has 100 by default."""


class Verified:
    """One of them: whose it is, until when it is good (seconds since 1970), by which key."""

    __slots__ = ("key", "principal", "until")

    def __init__(self, principal: Principal, until: float, key: Key) -> None:
        self.principal = principal
        self.until = until
        self.key = key


class Remembered:
    """Tokens by their SHA-256. At most `most`; the one that has been there longest goes first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        # A plain dict looks for its first entry behind all that were taken out before it.
        self._found: OrderedDict[bytes, Verified] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def find(self, digest: bytes, now: float) -> Verified | None:
        """What is known of a token, unless it has expired or its key has left the set."""
        found = self._found.get(digest)
        if found is not None and (now >= found.until or found.key.gone):
            del self._found[digest]
            return None
        return found

    def add(self, digest: bytes, verified: Verified) -> None:
        """Remember one."""
        if digest not in self._found and len(self._found) >= self._most:
            self._found.popitem(last=False)
        self._found[digest] = verified
