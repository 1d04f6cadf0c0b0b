"""Client certificates: which names ask for one, how that is enforced, and what a connection showed.

A connection's certificate is verified once, by OpenSSL during the handshake, under the policy of
the name that the client asked for (`guard`, called from the servername callback). Three guards
beside each other keep a name that demands certificates closed, since OpenSSL resumes a session
before that callback, and takes no policy over from the context that a connection is switched to:

- the policy is set on the connection itself;
- on a listener that asks any name's clients for certificates no session is ever resumed
  (`edgeproxy.certs.contexts`);
- each Host is looked at again (`standing`): the connection must have been made under the very
  policy of that host, and must have shown a certificate that is still good under it now. That is
  worked out once for a connection, its host and the configuration, not for each request.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.logger import Logger

from edgeproxy.certs.authority import Authority, der
from edgeproxy.certs.certificate import first_line
from edgeproxy.certs.hostname import normalise, normalise_address, parent_pattern
from edgeproxy.identity.clientcert import Holders, Unknown
from edgeproxy.transport.openssl import Accepted

if TYPE_CHECKING:
    from edgeproxy.certs.names import NameMap
    from edgeproxy.config.clientcerts import Asked
    from edgeproxy.exchange import Peer
    from edgeproxy.identity.principal import Principal

_log = Logger()

T = TypeVar("T")

DEPTH = 4
"""CAs between a client's certificate and the one that is trusted. nginx and Apache take none."""

LARGEST = 16 * 1024
"""Bytes of a client's certificates together: what a head may hold. OpenSSL itself reads 100 KiB."""

_NEVER = float("inf")

# Verification errors (openssl/x509_vfy.h) in words for the log.
_WORDS = {
    2: "its CA is unknown",
    3: "no revocation list is there for its CA",
    7: "its signature is wrong",
    9: "not yet valid",
    10: "expired",
    11: "the revocation list is not valid yet",
    12: "the revocation list is too old",
    18: "signed by itself",
    19: "its root CA is unknown",
    20: "its CA is unknown",
    21: "its CA is unknown",
    22: "its chain is too long",
    23: "revoked",
    24: "issued by what is no CA",
    25: "its chain is too long",
    26: "not made for clients",
    27: "its CA is not trusted",
    33: "no revocation list is there for its CA",
    66: "its key is too weak",
    68: "its signature is too weak",
}
_NO_LIST = (3, 33)


class Policy:
    """What the clients of a name are asked for, and what is made of it.

    Compared by identity; a reload that changes nothing of it keeps the object.
    """

    __slots__ = ("asked", "authority", "holders")

    def __init__(self, asked: Asked, authority: Authority, holders: Holders) -> None:
        self.asked = asked
        self.authority = authority
        self.holders = holders

    @property
    def credential(self) -> str:
        return self.holders.credential

    def equip(self, context: SSL.Context) -> None:
        """Make a fresh context verify clients by this: only these CAs, only these lists."""
        store = context.get_cert_store()
        assert store is not None
        for ca in self.authority.cas:
            store.add_cert(crypto.X509.from_cryptography(ca))
            context.add_client_ca(ca)
        flags = crypto.X509StoreFlags.PARTIAL_CHAIN
        for each in self.authority.lists:
            store.add_crl(each)
            flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
        store.set_flags(flags)


def of_name(name: str | None, by_host: Mapping[str, T]) -> T | None:
    """What belongs to a name in any spelling, by host: exact, wildcard over one label, then any."""
    normal = None if name is None else normalise(name) or normalise_address(name)
    if normal is None:
        return by_host.get("*")
    if ":" in normal:
        normal = f"[{normal}]"  # as hosts are written
    return by_host.get(normal) or by_host.get(parent_pattern(normal) or "") or by_host.get("*")


def of_sni(sni: str | None, names: NameMap | None, by_host: Mapping[str, T]) -> T | None:
    """What belongs to the name that a client has sent; without one (None) to the default name."""
    if sni is None and names is not None:
        sni = names.default_name
    return of_name(sni, by_host)


class Policies:
    """The policies by host pattern; false when no name asks for certificates."""

    __slots__ = ("by_host",)

    def __init__(self, by_host: Mapping[str, Policy] | None = None) -> None:
        self.by_host = dict(by_host or {})

    def __bool__(self) -> bool:
        return bool(self.by_host)

    def find(self, name: str | None) -> Policy | None:
        """The policy of a name in any spelling: exact, wildcard over one label, then any."""
        return of_name(name, self.by_host)

    def of_connection(self, sni: str | None, names: NameMap | None) -> Policy | None:
        """The policy under which a client's handshake stands; without SNI the default name's."""
        return of_sni(sni, names, self.by_host)


class Certified:
    """A certificate that a client has shown, verified under ``policy`` in its handshake.

    ``chain`` leads from the client's certificate to the CA that is trusted, that one included.
    """

    __slots__ = ("chain", "policy")

    def __init__(self, policy: Policy, chain: tuple[x509.Certificate, ...]) -> None:
        self.policy = policy
        self.chain = chain


class Handshake:
    """A connection's app data while it is guarded: the name it was asked for, and its policy.

    ``problem`` is why its certificate was refused.
    """

    __slots__ = ("name", "policy", "problem")

    def __init__(self, name: str | None, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.problem = ""

    def certified(self, connection: SSL.Connection, address: str) -> Certified | None:
        """What the client at an address has shown, once the handshake is done; None for nothing."""
        try:
            chain = connection.get_verified_chain(as_cryptography=True)
        except (ValueError, TypeError) as error:
            self.failed(address, f"its certificate cannot be read: {first_line(error)}")
            return None
        return Certified(self.policy, tuple(chain)) if chain else None

    def failed(self, address: str, reason: str) -> None:
        """Tell why a handshake failed, in one line; the client has got the alert."""
        _log.info(
            "handshake refused: {name} from {address}: {why}",
            name=ascii(self.name or "no name")[1:-1],
            address=address,
            why=f"client certificate: {self.problem}" if self.problem else reason,
        )


def guard(
    connection: SSL.Connection, context: SSL.Context, name: str | None, policy: Policy
) -> None:
    """Put a connection under a policy, from within the servername callback.

    ``context`` was made for the policy (`Policy.equip`).
    """
    if isinstance(connection, Accepted):
        connection.listed()
    connection.set_app_data(Handshake(name, policy))
    connection.set_context(context)
    mode = SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE
    if policy.asked.required:
        mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    connection.set_verify(mode, _verified)
    connection.set_options(SSL.OP_NO_TICKET)


def _verified(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    """OpenSSL's verdict on one certificate of a chain, as it is but for one thing.

    A CA that is trusted because it was configured needs no revocation list of whoever is above it;
    OpenSSL asks for one where it is no root.
    """
    if ok:
        return True
    handshake: Handshake = connection.get_app_data()
    if (
        error in _NO_LIST
        and depth
        and handshake.policy.authority.trusts(certificate.to_cryptography())
    ):
        return True
    handshake.problem = _WORDS.get(error, f"OpenSSL's verification error {error}")
    return False


class Standing(NamedTuple):
    """What a connection may do under the policy of a host.

    ``refusal`` is why nothing at all: "" when it may go on. ``shown`` tells that there was a
    certificate; then either ``principal`` is its holder, until ``until`` (seconds since 1970), or
    ``objection`` says what is wrong with it. ``lines`` go to the upstream, each with its CRLF.
    """

    credential: str = ""
    refusal: str = ""
    shown: bool = False
    principal: Principal | None = None
    objection: str = ""
    until: float = _NEVER
    lines: bytes = b""


def standing(
    policies: Policies, names: NameMap | None, host: str, peer: Peer, now: float
) -> Standing | None:
    """What a connection's certificate is worth for a host; None where none is asked for, and none
    was when the connection was made.

    ``now``: seconds since 1970.

    :raises WrongConnection: the host's policy is not that of the connection.
    """
    policy = policies.find(host)
    if policy is not policies.of_connection(peer.sni, names):
        raise WrongConnection
    if policy is None:
        return None
    certified: Certified | None = peer.certified
    if certified is None:
        if policy.asked.required:
            raise WrongConnection  # made before the policy was in force
        return Standing(policy.credential)
    found = _judged(policy, certified, datetime.fromtimestamp(now, UTC))
    if policy.asked.required and found.principal is None:
        return found._replace(refusal=found.objection)
    return found


class WrongConnection(Exception):
    """This connection can never be for that host; another one may."""


def _judged(policy: Policy, certified: Certified, now: datetime) -> Standing:
    authority, chain = policy.authority, certified.chain
    try:
        objection = authority.objection(chain, now)
    except ValueError as error:
        objection = f"cannot be read: {first_line(error)}"
    if not objection and sum(len(der(each)) for each in chain[:-1]) > LARGEST:
        objection = f"more than {LARGEST} bytes of certificates"
    principal = None
    if not objection:
        try:
            principal = policy.holders.principal(chain[0])
        except Unknown as error:
            objection = str(error)
    if principal is None:
        return Standing(policy.credential, shown=True, objection=objection)
    ends = [each.not_valid_after_utc for each in chain]
    if authority.until is not None:
        ends.append(authority.until)
    return Standing(
        policy.credential,
        shown=True,
        principal=principal,
        until=min(ends).timestamp(),
        lines=_lines(policy.asked.forward, chain),
    )


def _lines(forward: str, chain: tuple[x509.Certificate, ...]) -> bytes:
    """Client-Cert and Client-Cert-Chain (RFC 9440 2.2 and 2.3); the latter without the CA that is
    trusted, which the service knows or need not."""
    if forward == "nothing":
        return b""
    lines = b"Client-Cert: %b\r\n" % _sequence(chain[0])
    if forward == "chain" and len(chain) > 2:
        lines += b"Client-Cert-Chain: %b\r\n" % b", ".join(map(_sequence, chain[1:-1]))
    return lines


def _sequence(certificate: x509.Certificate) -> bytes:
    """A byte sequence of structured fields (RFC 9651 3.3.5)."""
    return b":%b:" % b64encode(der(certificate))
