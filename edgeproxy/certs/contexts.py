"""One OpenSSL context per entry, and the callback that chooses among them.

Beside `edgeproxy.transport.openssl` this is the only module that touches `OpenSSL.SSL._lib`.
Why the callback goes through the private binding: pyOpenSSL's wrapper refuses a name only by
an exception, prints a traceback for each one, and swallowing it lets the handshake go on.
Returning SSL_TLSEXT_ERR_ALERT_FATAL makes OpenSSL send `unrecognized_name` (RFC 6066 section
3), in TLS 1.2 and 1.3, with and without SNI.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from OpenSSL import SSL
from twisted.logger import Logger

from edgeproxy.certs.clients import DEPTH, Policies, Policy, guard
from edgeproxy.certs.hostname import normalise, normalise_address
from edgeproxy.certs.loading import load, openssl_words
from edgeproxy.certs.names import Entry, NameMap
from edgeproxy.certs.scan import Chain
from edgeproxy.transport.openssl import MODES, one_record_a_read, shaking

_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_lib: Any = SSL._lib  # type: ignore[attr-defined]

# Mozilla's "intermediate", guidelines 5.8 (https://ssl-config.mozilla.org/guidelines/5.8.json):
# forward secrecy and AEAD only, DHE no more. Its "modern" is the same without TLS 1.2.
TLS12_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
TLS13_CIPHERS = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

# Tried in this order: OpenSSL before 3.5 does not know the post-quantum hybrid. One list without
# "/" between groups: whatever key share the client has sent is taken, no extra round trip.
GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")

# SSL_OP_PRIORITIZE_CHACHA (openssl/ssl.h, bit 21) has no name in pyOpenSSL.
_OP_PRIORITIZE_CHACHA = 1 << 21

# Server preference goes beyond Mozilla's advice: without it a client that lists RSA signatures
# first (Go does) would get the RSA chain although it can verify ECDSA, which costs us ten times
# as much. A client that prefers ChaCha20 because it has no AES hardware still gets it.
OPTIONS = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | _OP_PRIORITIZE_CHACHA
)

HTTP_1_1 = (b"http/1.1",)

_HOST_NAME = _lib.TLSEXT_NAMETYPE_host_name
_string: Any = _ffi.string
_MOST_KNOWN = 4096  # spellings: all names of a thousand certificates in the four usual ones

_REFUSE = 2  # SSL_TLSEXT_ERR_ALERT_FATAL
_ACCEPT = 0  # SSL_TLSEXT_ERR_OK
_IGNORE = 3  # SSL_TLSEXT_ERR_NOACK

# OpenSSL calls these for as long as a connection lives, which may be longer than the objects
# that made them: they are never freed. There is one per `ServerTLS`, and it holds that weakly.
_callbacks: list[object] = []


class Rejected(NamedTuple):
    """A chain that OpenSSL would not load, and what it said."""

    chain: Chain
    reason: str


class _Live(NamedTuple):
    names: NameMap
    contexts: dict[Entry, SSL.Context]
    guarded: dict[tuple[Entry, Policy], SSL.Context]
    """As `contexts`, for names that ask for client certificates; made when first needed."""
    known: dict[bytes, tuple[str, SSL.Context]]
    """What names, as clients spell them, led to where no certificate is asked for; bounded."""


class Prepared(NamedTuple):
    """What `building` has made: everything for `names`, less what OpenSSL would not load."""

    names: NameMap
    contexts: dict[Entry, SSL.Context]
    rejected: tuple[Rejected, ...]


class ServerTLS:
    """What a listener needs to answer handshakes for all names of a `NameMap`.

    Connections are created from `context`. It has no certificate; the servername callback puts
    the chosen entry's context in its place and leaves the name it chose by as the connection's
    app data: normalised, and None where none was sent or what was sent is no name. So
    `names.choose(connection.get_app_data())` is what the connection was given. For a name that asks
    for client certificates it is a `clients.Handshake`, which holds that name too.
    """

    log = Logger()

    def __init__(self, names: NameMap, protocols: tuple[bytes, ...] = HTTP_1_1) -> None:
        """Build everything for `names`. `protocols`: ALPN, the preferred first."""
        self._alpn = _alpn_callback(protocols)
        self._servername = _servername_callback(weakref.ref(self))
        # One reference, so that a handshake never sees the names of one map and the contexts of
        # another.
        self._live = _Live(NameMap((), None, names.made), {}, {}, {})
        self._oldest = SSL.TLS1_2_VERSION
        self.policies = Policies()
        """What clients are asked for; replaced by `ask`."""
        self.rejected: tuple[Rejected, ...] = ()
        """The chains of the last swap that OpenSSL would not load."""
        self.context: SSL.Context = self._base_context()
        """Create each connection from this, looked up anew each time: `rotate` replaces it."""
        self.swap(names)

    @property
    def names(self) -> NameMap:
        """The map in use."""
        return self._live.names

    def rotate(self) -> None:
        """Replace the base context and with it the session ticket keys, which live nowhere else.

        Tickets from before are no longer taken: their holders make a full handshake.
        """
        self.context = self._base_context()

    def ask(self, policies: Policies) -> None:
        """From now on clients are asked for certificates by `policies`.

        Sessions from before are not resumed, and where any name asks for certificates none ever
        is: OpenSSL resumes a session before it is known for which name.
        """
        if policies is not self.policies:
            self.policies = policies
            self._live = self._live._replace(guarded={}, known={})
            self.rotate()

    def require(self, posture: str) -> None:
        """From now on handshakes are made under Mozilla's ``intermediate`` or ``modern``.

        Sessions from before are not resumed: they may be of a version that is not spoken any more.
        """
        oldest = SSL.TLS1_3_VERSION if posture == "modern" else SSL.TLS1_2_VERSION
        if oldest != self._oldest:
            self._oldest = oldest
            self.rotate()

    def swap(self, names: NameMap) -> None:
        """Build the contexts that `names` needs and do not exist yet, then change over at once."""
        for _ in self.steps(names):
            pass

    def steps(self, names: NameMap) -> Generator[None, None, None]:
        """Do the work of `swap`, yielding after each context (0.3 ms), and after the change let
        go of the old ones likewise. A generator that is dropped before that changes nothing.
        """
        yield from self.use((yield from self.building(names)))

    def use(self, prepared: Prepared) -> Generator[None, None, None]:
        """Change over, in the first step; the others let go of the old contexts (10 µs each)."""
        old = self._live.contexts
        self._live = _Live(prepared.names, prepared.contexts, {}, {})
        self.rejected = prepared.rejected
        while old:
            for _ in range(min(100, len(old))):
                old.popitem()
            yield

    def building(self, names: NameMap) -> Generator[None, None, Prepared]:
        """Build what `names` needs and is not there yet; nothing of it is in use.

        A chain that OpenSSL will not load is left out, and the next best takes its names.
        """
        rejected: list[Rejected] = []
        contexts: dict[Entry, SSL.Context] = {}
        while True:
            found = len(rejected)
            for entry in names.entries:
                if entry not in contexts:
                    context = self._live.contexts.get(entry) or self._entry_context(entry, rejected)
                    if context is not None:
                        contexts[entry] = context
                yield
            if len(rejected) == found:
                break
            bad = {rejection.chain for rejection in rejected}
            good = [chain for chain in names.chains if chain not in bad]
            names = yield from NameMap.in_steps(good, names.default_name, names.made)
        if rejected:
            contexts = {entry: contexts[entry] for entry in names.entries}
        return Prepared(names, contexts, tuple(rejected))

    def _entry_context(self, entry: Entry, rejected: list[Rejected]) -> SSL.Context | None:
        """Return the context for an entry; None if one of its chains had to be rejected."""
        context = self._new_context()
        before = len(rejected)
        for chain in entry.chains:
            try:
                load(context, chain)
            except (SSL.Error, ValueError, OSError) as error:
                rejected.append(Rejected(chain, openssl_words(error)))
        if len(rejected) == before:
            return context
        for chain, reason in rejected[before:]:
            self.log.error(
                "certificate for {name} from {files} cannot be loaded: {reason}",
                name=entry.name,
                files=", ".join(chain.files),
                reason=reason,
            )
        return None

    def _guarded_context(self, entry: Entry, policy: Policy) -> SSL.Context:
        """Return the context for an entry whose clients are verified under `policy`."""
        guarded = self._live.guarded
        context = guarded.get((entry, policy))
        if context is None:
            context = self._entry_context(entry, [])
            if context is None:
                raise ValueError(f"the certificate for {entry.name} cannot be loaded again")
            policy.equip(context)
            guarded[entry, policy] = context
        return context

    def _base_context(self) -> SSL.Context:
        context = self._new_context()
        # Here alone: connections keep the versions of the context they were made from.
        context.set_min_proto_version(self._oldest)
        # Whoever holds the context, or a connection made from it, holds what its callback needs.
        context.set_app_data(self)
        if self.policies:
            context.set_options(SSL.OP_NO_TICKET)
        _lib.SSL_CTX_set_tlsext_servername_callback(context._context, self._servername)
        return context

    def _new_context(self) -> SSL.Context:
        """Return a context with everything but a certificate.

        OpenSSL copies options, modes, versions and groups from the base context when the
        connection is made, and takes ciphers, certificates and ALPN from the one it is switched
        to: all contexts are made alike, so that nobody has to remember which.
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(OPTIONS)
        context.set_mode(MODES)
        one_record_a_read(context)
        context.set_cipher_list(TLS12_CIPHERS)
        context.set_tls13_ciphersuites(TLS13_CIPHERS)
        # Sessions are resumed by ticket; a cache of our own would hold memory for each client.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # Only clients that are asked for a certificate are verified, see `clients`.
        context.set_verify_depth(DEPTH)
        if not any(_lib.SSL_CTX_set1_curves_list(context._context, groups) for groups in GROUPS):
            raise ValueError("OpenSSL knows none of the groups " + GROUPS[-1].decode("ascii"))
        _lib.SSL_CTX_set_alpn_select_cb(context._context, self._alpn, _ffi.NULL)
        return context

    def _choose(self, connection: SSL.Connection, sent: bytes | None) -> int:
        """Switch the connection to the context for the name that the client sent; or refuse."""
        names, contexts, _, known = self._live
        if sent is not None and (found := known.get(sent)):
            spelled, context = found
            connection.set_app_data(spelled)
            connection.set_context(context)
            return _ACCEPT
        name = None if sent is None else _spelling(sent)
        connection.set_app_data(name)
        entry = names.choose(name)
        if entry is not None:
            policy = self.policies.of_connection(name, names) if self.policies else None
            if policy is None:
                context = contexts[entry]
                connection.set_context(context)
                if sent is not None and name is not None:
                    if len(known) >= _MOST_KNOWN:
                        known.clear()
                    known[sent] = name, context
                return _ACCEPT
            guard(connection, self._guarded_context(entry, policy), name, policy)
            return _ACCEPT
        if sent is None:
            self.log.info("handshake refused: no name was sent and no default is configured")
        else:
            # The name comes from a stranger: escaped, bounded by OpenSSL to 255, on one line.
            self.log.info("handshake refused: no certificate for {name}", name=ascii(sent)[1:])
        return _REFUSE


def _spelling(sent: bytes) -> str | None:
    """Return the name under which a client's SNI is looked up; None where nothing could match.

    RFC 6066 section 3 asks for ASCII without addresses. Addresses are sent all the same, and
    a certificate that carries the address covers it.
    """
    if not sent.isascii():
        return None
    text = sent.decode("ascii")
    return normalise(text) or normalise_address(text)


def _servername_callback(owner: weakref.ref[ServerTLS]) -> object:
    """Return the C callback that chooses a context. No exception leaves it."""

    def choose(ssl: Any, _alert: Any, _argument: Any) -> int:
        try:
            server = owner()
            if server is None:
                return _REFUSE
            connection = shaking[0]
            if connection is None or connection._ssl != ssl:
                connection = SSL.Connection._reverse_mapping[ssl]
            sent = _lib.SSL_get_servername(ssl, _HOST_NAME)
            return server._choose(connection, _string(sent) if sent else None)
        # Whatever went wrong, OpenSSL must hear "no", and nothing may unwind through its frames.
        except BaseException:
            with contextlib.suppress(BaseException):
                ServerTLS.log.failure("handshake refused: choosing a certificate failed")
            return _REFUSE

    return _keep("int (*)(SSL *, int *, void *)", choose)


def _alpn_callback(protocols: tuple[bytes, ...]) -> object:
    """Return the C callback that picks the first of `protocols` that the client offers.

    None in common ends the handshake with `no_application_protocol` (RFC 7301 section 3.2),
    which also stops cross-protocol attacks; a client that offers nothing is not asked.
    """
    # OpenSSL keeps the pointer, not the bytes.
    ours = [(bytes((len(p),)) + p, _ffi.new("unsigned char[]", p), len(p)) for p in protocols]

    def pick(_ssl: Any, out: Any, out_length: Any, offer: Any, length: int, _argument: Any) -> int:
        try:
            offered = set(_offered(bytes(_ffi.buffer(offer, length))))
            for prefixed, pointer, size in ours:
                if prefixed[1:] in offered:
                    out[0] = pointer
                    out_length[0] = size
                    return _ACCEPT
        except BaseException:
            with contextlib.suppress(BaseException):
                ServerTLS.log.failure("handshake refused: choosing a protocol failed")
        return _REFUSE

    signature = (
        "int (*)(SSL *, unsigned char **, unsigned char *, unsigned char *, unsigned int, void *)"
    )
    return _keep(signature, pick)


def _offered(offer: bytes) -> Iterator[bytes]:
    """Yield the protocols of an ALPN offer, each with its length before it; OpenSSL checked it."""
    position = 0
    while position < len(offer):
        end = position + 1 + offer[position]
        yield offer[position + 1 : end]
        position = end


def _keep(signature: str, function: Callable[..., int]) -> object:
    callback: object = _ffi.callback(signature, function, error=_REFUSE, onerror=_silence)
    _callbacks.append(callback)
    return callback


def _silence(_type: object, _value: object, _traceback: object) -> None:
    """Stand in for cffi's printing of tracebacks: both callbacks have logged before this."""
