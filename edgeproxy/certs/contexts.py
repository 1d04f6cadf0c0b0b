"""What a handshake is answered with, and the callback that chooses it by name.

A context costs 47 KiB and, where each name has one of its own, the memory of a handshake is
always cold: with 5,000 names 8 % of its time. So a context is shared by all names whose
certificate comes by way of the same intermediates, and the connection gets the certificate.

Why the callback goes through the private binding: pyOpenSSL's wrapper refuses a name only by
an exception, prints a traceback for each one, and swallowing it lets the handshake go on.
Returning SSL_TLSEXT_ERR_ALERT_FATAL makes OpenSSL send `unrecognized_name` (RFC 6066 section
3), in TLS 1.2 and 1.3, with and without SNI.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

from OpenSSL import SSL
from twisted.logger import Logger

from edgeproxy.certs.clients import Policies, Policy, guard
from edgeproxy.certs.hostname import normalise, normalise_address
from edgeproxy.certs.loading import (
    REFUSED,
    intermediates,
    load,
    load_intermediates,
    openssl_words,
)
from edgeproxy.certs.names import Entry, NameMap
from edgeproxy.certs.posture import HTTP_1_1, alpn_callback, new_context
from edgeproxy.certs.scan import Chain
from edgeproxy.transport.openssl import Pair, callback, shaking

_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_lib: Any = SSL._lib  # type: ignore[attr-defined]

_HOST_NAME = _lib.TLSEXT_NAMETYPE_host_name
_string: Any = _ffi.string
_session_reused: Any = _lib.SSL_session_reused
_MOST_KNOWN = 4096  # spellings beside the names themselves

_REFUSE = 2  # SSL_TLSEXT_ERR_ALERT_FATAL
_ACCEPT = 0  # SSL_TLSEXT_ERR_OK


class Rejected(NamedTuple):
    """A chain that OpenSSL would not load, and what it said."""

    chain: Chain
    reason: str


class Served(NamedTuple):
    """What an entry is served by."""

    context: SSL.Context
    pair: Pair | None
    """The certificate and its key; None where the context has them."""

    def to(self, connection: SSL.Connection) -> None:
        """Let the connection be served by it, from within the servername callback.

        A session that is resumed shows no certificate, and all contexts are alike in the rest.
        """
        if not _session_reused(connection._ssl):
            if connection.get_context() is self.context:
                # A second hello, perhaps with another name: what the first has led to must go,
                # or a certificate of another key type would stay. NULL is the base context.
                _lib.SSL_set_SSL_CTX(connection._ssl, _ffi.NULL)
            connection.set_context(self.context)
            if self.pair is not None:
                self.pair.into(connection)


class _Live(NamedTuple):
    names: NameMap
    served: dict[Entry, Served]
    guarded: dict[tuple[Entry, Policy], SSL.Context]
    """For names that ask for client certificates; made when first needed."""
    known: dict[bytes, tuple[str, Served]]
    """What names, as clients spell them, led to where no certificate is asked for; bounded."""


class Prepared(NamedTuple):
    """What `building` has made: everything for `names`, less what OpenSSL would not load."""

    names: NameMap
    served: dict[Entry, Served]
    rejected: tuple[Rejected, ...]


class ServerTLS:
    """What a listener needs to answer handshakes for all names of a `NameMap`.

    Connections are created from `context`. It has no certificate; the servername callback gives
    them what serves the chosen entry, and leaves the name it chose by as the connection's app
    data: normalised, and None where none was sent or what was sent is no name. So
    `names.choose(connection.get_app_data())` is what the connection was given. For a name that asks
    for client certificates it is a `clients.Handshake`, which holds that name too.
    """

    log = Logger()

    def __init__(self, names: NameMap, protocols: tuple[bytes, ...] = HTTP_1_1) -> None:
        """Build everything for `names`. `protocols`: ALPN, the preferred first."""
        self._alpn = alpn_callback(protocols)
        self._servername = _servername_callback(weakref.ref(self))
        # One reference, so that a handshake never sees the names of one map and the contexts of
        # another.
        self._live = _Live(NameMap((), None, names.made), {}, {}, {})
        # By the intermediates that they send; each lives as long as an entry is served by it.
        self._shared: weakref.WeakValueDictionary[bytes, SSL.Context] = (
            weakref.WeakValueDictionary()
        )
        # Where chains show whether OpenSSL takes them.
        self._trial = new_context(self._alpn)
        self._oldest = SSL.TLS1_2_VERSION
        self._missing: str | None = None  # the default, where it names nothing
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

    def fall_back(self, default: str | None) -> None:
        """From now on the certificate of another name answers where no name matches."""
        names = self._live.names.with_default(default)
        self._live = self._live._replace(names=names, known={})
        self._tell_default()

    def swap(self, names: NameMap) -> None:
        """Build the contexts that `names` needs and do not exist yet, then change over at once."""
        for _ in self.steps(names):
            pass

    def steps(self, names: NameMap) -> Generator[None, None, None]:
        """Do the work of `swap`, yielding after each entry (0.3 ms), and after the change let
        go of the old ones likewise. A generator that is dropped before that changes nothing.

        What served the names of a chain that OpenSSL will not load goes on to serve them.

        :raises OSError: see `loading.load`; nothing has changed.
        """
        yield from self.use((yield from self.building(names, self._live.names.chains)))

    def use(self, prepared: Prepared) -> Generator[None, None, None]:
        """Change over, in the first step; the others let go of what served the old entries."""
        old = self._live.served
        self._live = _Live(prepared.names, prepared.served, {}, {})
        self.rejected = prepared.rejected
        self._tell_default()
        while old:
            for _ in range(min(100, len(old))):
                old.popitem()
            yield

    def _tell_default(self) -> None:
        """Log when the default names nothing, and when it names something again."""
        name = self.names.default_name
        missing = name if self.names.default is None else None
        if missing == self._missing:
            return
        self._missing = missing
        if missing is not None:
            self.log.error(
                "certificates: none is for {name}, which `certs: default:` names: clients that "
                "send no name, or one that is not here, are refused",
                name=missing,
            )
        elif name is not None:
            self.log.info("certificates: there is one for {name}, the default, again", name=name)

    def building(
        self, names: NameMap, before: Iterable[Chain] = ()
    ) -> Generator[None, None, Prepared]:
        """Build what `names` needs and is not there yet; nothing of it is in use.

        A chain that OpenSSL will not load is left out, and the next best takes its names, perhaps
        one of `before`.

        :raises OSError: see `loading.load`.
        """
        rejected: list[Rejected] = []
        served: dict[Entry, Served] = {}
        while True:
            found = len(rejected)
            for entry in names.entries:
                if entry not in served:
                    made = self._live.served.get(entry) or self._serve(entry, rejected)
                    if made is not None:
                        served[entry] = made
                yield
            if len(rejected) == found:
                break
            bad = {rejection.chain for rejection in rejected}
            lost = {name for chain in bad for name in chain.names}
            instead = (chain for chain in before if not lost.isdisjoint(chain.names))
            good = [chain for chain in dict.fromkeys((*names.chains, *instead)) if chain not in bad]
            names = yield from NameMap.in_steps(good, names.default_name, names.made)
        if rejected:
            served = {entry: served[entry] for entry in names.entries}
        return Prepared(names, served, tuple(rejected))

    def _serve(self, entry: Entry, rejected: list[Rejected]) -> Served | None:
        """Make what an entry is served by; None if one of its chains had to be rejected."""
        if len(entry.chains) > 1:
            # Of each key type with its own intermediates, for the client's abilities to decide.
            context = new_context(self._alpn)
            return Served(context, None) if self._loaded(context, entry, rejected) else None
        pairs = self._loaded(self._trial, entry, rejected)
        if not pairs:
            return None
        above = intermediates(entry.chains[0])
        shared = self._shared.get(above)
        if shared is None:
            shared = new_context(self._alpn)
            load_intermediates(shared, above)
            self._shared[above] = shared
        return Served(shared, pairs[0])

    def _loaded(
        self, context: SSL.Context, entry: Entry, rejected: list[Rejected]
    ) -> list[Pair] | None:
        """Load an entry's chains into a context; None if one of them had to be rejected."""
        pairs = []
        before = len(rejected)
        for chain in entry.chains:
            try:
                pairs.append(load(context, chain))
            except REFUSED as error:
                rejected.append(Rejected(chain, openssl_words(error)))
        for chain, reason in rejected[before:]:
            self.log.error(
                "certificate for {name} from {files} cannot be loaded: {reason}",
                name=entry.name,
                files=", ".join(chain.files),
                reason=reason,
            )
        return None if len(rejected) > before else pairs

    def _guarded_context(self, entry: Entry, policy: Policy) -> SSL.Context:
        """Return the context for an entry whose clients are verified under `policy`."""
        guarded = self._live.guarded
        context = guarded.get((entry, policy))
        if context is None:
            context = new_context(self._alpn)
            if not self._loaded(context, entry, []):
                raise ValueError(f"the certificate for {entry.name} cannot be loaded again")
            policy.equip(context)
            guarded[entry, policy] = context
        return context

    def _base_context(self) -> SSL.Context:
        context = new_context(self._alpn)
        # Here alone: connections keep the versions of the context they were made from.
        context.set_min_proto_version(self._oldest)
        # Whoever holds the context, or a connection made from it, holds what its callback needs.
        context.set_app_data(self)
        if self.policies:
            context.set_options(SSL.OP_NO_TICKET)
        _lib.SSL_CTX_set_tlsext_servername_callback(context._context, self._servername)
        return context

    def _choose(self, connection: SSL.Connection, sent: bytes | None) -> int:
        """Switch the connection to the context for the name that the client sent; or refuse."""
        names, served, _, known = self._live
        if sent is not None and (found := known.get(sent)):
            spelled, chosen = found
            connection.set_app_data(spelled)
            chosen.to(connection)
            return _ACCEPT
        name = None if sent is None else _spelling(sent)
        connection.set_app_data(name)
        entry = names.choose(name)
        if entry is not None:
            policy = self.policies.of_connection(name, names) if self.policies else None
            if policy is None:
                chosen = served[entry]
                chosen.to(connection)
                if sent is not None and name is not None:
                    if len(known) >= len(names.by_name) + _MOST_KNOWN:
                        known.clear()
                    known[sent] = name, chosen
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

    # There is one per `ServerTLS`, which it holds weakly: callbacks are never freed.
    return callback("int (*)(SSL *, int *, void *)", choose, _REFUSE)
