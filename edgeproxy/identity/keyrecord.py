"""What is known of one API key."""

from __future__ import annotations

from enum import StrEnum

from edgeproxy.identity.principal import Principal


class KeyState(StrEnum):
    """Whether a key may be used; the reason goes to the log, never to the caller."""

    OK = "ok"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    REVOKED = "revoked"


_OK = KeyState.OK


class KeyRecord:
    """One line of the key file. Times in seconds since 1970; `expires` is inf for never.

    `id` is the key's own, `consumer` its holder's: that of the first key in a line of rotations.
    `pepper` is the fingerprint of the pepper that the digest was made with, "" for SHA-256 alone.
    `used` is when it was last looked up since the file was loaded, 0.0 for not yet.
    `principal` is built when first asked for, so that a key that nobody uses costs little.
    """

    __slots__ = (
        "consumer",
        "digest",
        "expires",
        "groups",
        "id",
        "name",
        "not_before",
        "pepper",
        "plan",
        "principal",
        "revoked",
        "scopes",
        "used",
    )
    principal: Principal

    def __init__(
        self,
        id: str,
        name: str,
        digest: bytes,
        *,
        not_before: float,
        expires: float,
        revoked: bool = False,
        groups: tuple[str, ...] = (),
        scopes: frozenset[str] = frozenset(),
        plan: str = "",
        consumer: str = "",
        pepper: str = "",
    ) -> None:
        self.id = id
        self.name = name
        self.digest = digest
        self.not_before = not_before
        self.expires = expires
        self.revoked = revoked
        self.groups = groups
        self.scopes = scopes
        self.plan = plan
        self.consumer = consumer or id
        self.pepper = pepper
        self.used = 0.0

    def __getattr__(self, attribute: str) -> Principal:
        # Reached only while the slot is empty: later look-ups cost a plain attribute.
        if attribute != "principal":
            raise AttributeError(attribute)
        self.principal = Principal(self.consumer, self.name, self.groups, self.scopes, self.plan)
        return self.principal

    def state(self, now: float) -> KeyState:
        """Whether the key may be used at `now`; it may from `not_before` on, until `expires`."""
        if self.not_before <= now < self.expires and not self.revoked:
            return _OK
        if self.revoked:
            return KeyState.REVOKED
        return KeyState.EXPIRED if now >= self.expires else KeyState.NOT_YET

    def __repr__(self) -> str:
        return f"<KeyRecord {self.id} {self.name!r}>"
