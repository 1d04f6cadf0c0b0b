"""The calls into pyOpenSSL's private binding that the TLS stream makes per read and write, and
those that several modules need.

``OpenSSL.SSL.Connection.recv`` allocates a buffer and ``send`` makes a context manager for each
call; together with their error handling they cost more than OpenSSL itself does for a small
record. Beside this module only :mod:`edgeproxy.certs.contexts` and :mod:`edgeproxy.certs.posture`
touch the binding.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from socket import socket
from typing import Any

from OpenSSL import SSL, crypto

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]

#: One TLS record holds at most this much (RFC 8446 5.1), so one read never needs more.
RECORD = 16384

#: One buffer serves every connection: a reactor turn reads one at a time and copies at once.
BUFFER: Any = _ffi.new("char[]", RECORD)
VIEW: Any = _ffi.buffer(BUFFER)

SSL_read: Any = _lib.SSL_read
SSL_write: Any = _lib.SSL_write
from_buffer: Any = _ffi.from_buffer


class Wants(Enum):
    """What OpenSSL said when a call did not go through."""

    READ = "read"
    WRITE = "write"
    CLOSED = "closed"  # the peer sent close_notify
    FAILED = "failed"  # reset, protocol error, or the end of the stream without close_notify


_ANSWERS = {
    _lib.SSL_ERROR_WANT_READ: Wants.READ,
    _lib.SSL_ERROR_WANT_WRITE: Wants.WRITE,
    _lib.SSL_ERROR_ZERO_RETURN: Wants.CLOSED,
}


def wants(handle: Any, result: int) -> Wants:
    """Say what the call that returned ``result`` (zero or less) on ``handle`` needs.

    Empties OpenSSL's per-thread error queue on failure: a forgotten entry there would make the
    next connection's harmless "want read" look like an error.
    """
    answer = _ANSWERS.get(_lib.SSL_get_error(handle, result), Wants.FAILED)
    if answer is Wants.FAILED:
        _failure()
    return answer


#: What a stream needs of each connection: buffers given back, writes that take what fits.
MODES: int = (
    SSL.MODE_RELEASE_BUFFERS
    | _lib.SSL_MODE_ENABLE_PARTIAL_WRITE
    | _lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
)


def one_record_a_read(of: SSL.Context | SSL.Connection) -> None:
    """Let a read return after each record, also one that holds no data.

    OpenSSL goes on by itself until there are data. A peer that sends other records (TLS 1.3's key
    updates, TLS 1.2's renegotiations, which are refused) as fast as they are taken in then keeps
    us in a single call for ever, and everybody else waits.
    """
    if isinstance(of, SSL.Context):
        _lib.SSL_CTX_clear_mode(of._context, _lib.SSL_MODE_AUTO_RETRY)
    else:
        _lib.SSL_clear_mode(of._ssl, _lib.SSL_MODE_AUTO_RETRY)


class Pair:
    """A certificate and its private key, as OpenSSL holds them: parsed once, used by reference."""

    __slots__ = ("_certificate", "_key", "_owners")

    def __init__(self, chain_pem: bytes, key_pem: bytes) -> None:
        """``chain_pem``: the certificate comes first; ``key_pem`` is not encrypted.

        :raises OpenSSL.crypto.Error: OpenSSL cannot read them.
        """
        certificate = crypto.load_certificate(crypto.FILETYPE_PEM, chain_pem)
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, key_pem, b"")
        self._owners = certificate, key
        self._certificate = certificate._x509
        self._key = key._pkey

    def key_into(self, context: SSL.Context) -> None:
        """Put the key into a context that has the certificate.

        pyOpenSSL's own call would write the key out and read it in again.

        :raises ValueError: OpenSSL does not take it.
        """
        if _lib.SSL_CTX_use_PrivateKey(context._context, self._key) != 1:
            raise ValueError(_failure())

    def into(self, connection: SSL.Connection) -> None:
        """Let a connection show this certificate, whatever its context has (3 µs).

        :raises ValueError: OpenSSL does not take it.
        """
        handle = connection._ssl
        if (
            _SSL_use_certificate(handle, self._certificate) != 1
            or _SSL_use_PrivateKey(handle, self._key) != 1
        ):
            raise ValueError(_failure())


def verify_failure(connection: Any) -> str:
    """Why the peer's certificate is not trusted, in OpenSSL's words; empty if it is."""
    code = _lib.SSL_get_verify_result(connection._ssl)
    return _ffi.string(_lib.X509_verify_cert_error_string(code)).decode() if code else ""


def _failure() -> str:
    """Empty the error queue; what its first entry says, "" for nothing."""
    first = _lib.ERR_get_error()
    while _lib.ERR_get_error():
        pass
    text = _lib.ERR_reason_error_string(first) if first else _ffi.NULL
    return "" if text == _ffi.NULL else _ffi.string(text).decode("ascii", "replace")


class Accepted(SSL.Connection):
    """pyOpenSSL's connection for a server's socket, made by the calls that this takes and no more.

    Measured: 6 µs instead of 14. It is not in pyOpenSSL's table of connections, which costs as
    much again; callbacks find it in :data:`shaking`.
    """

    def __init__(self, context: SSL.Context, sock: socket) -> None:
        self._ssl = handle = _gc(_SSL_new(context._context), _SSL_free)
        self._context = context
        self._socket = sock
        self._app_data = None
        if _SSL_set_fd(handle, sock.fileno()) != 1:
            _failure()
            raise OSError("OpenSSL does not take the socket")
        _SSL_set_accept_state(handle)

    def listed(self) -> None:
        """Put it into pyOpenSSL's table, where its callbacks for certificates look."""
        SSL.Connection._reverse_mapping[self._ssl] = self


def callback(signature: str, function: Callable[..., int], otherwise: int) -> object:
    """Return a C function that calls ``function``, which lets no exception out; ``otherwise`` is
    what C hears if it does.

    OpenSSL calls it for as long as a connection lives, which may be longer than the objects that
    made it: it is never freed.
    """
    made: object = _ffi.callback(signature, function, error=otherwise, onerror=_silence)
    _callbacks.append(made)
    return made


_callbacks: list[object] = []


def _silence(_type: object, _value: object, _traceback: object) -> None:
    """Stand in for cffi's printing of tracebacks: the function has logged before this."""


#: The connection whose handshake goes on at this moment, for callbacks of OpenSSL.
shaking: list[SSL.Connection | None] = [None]

_gc: Any = _ffi.gc
_SSL_new: Any = _lib.SSL_new
_SSL_free: Any = _lib.SSL_free
_SSL_set_fd: Any = _lib.SSL_set_fd
_SSL_set_accept_state: Any = _lib.SSL_set_accept_state
_SSL_do_handshake: Any = _lib.SSL_do_handshake
_SSL_use_certificate: Any = _lib.SSL_use_certificate
_SSL_use_PrivateKey: Any = _lib.SSL_use_PrivateKey
_SSL_version: Any = _lib.SSL_version
_VERSIONS = {SSL.TLS1_2_VERSION: "TLSv1.2", SSL.TLS1_3_VERSION: "TLSv1.3"}


def version(connection: SSL.Connection) -> str:
    """The protocol version of a connection, as OpenSSL calls it."""
    found = _VERSIONS.get(_SSL_version(connection._ssl))
    return found or connection.get_protocol_version_name()


def handshake(connection: SSL.Connection) -> Wants | str | None:
    """Go on with the handshake; ``None`` once it is done, a text when it failed: OpenSSL's words,
    or "" when the client just went away."""
    handle = connection._ssl
    shaking[0] = connection
    result = _SSL_do_handshake(handle)
    shaking[0] = None
    if result == 1:
        return None
    answer = _ANSWERS.get(_lib.SSL_get_error(handle, result))
    return _failure() if answer is None else answer


def shut_down(handle: Any) -> bool:
    """Send ``close_notify``; ``False`` when the kernel has no room for it now."""
    result = _lib.SSL_shutdown(handle)
    return result >= 0 or wants(handle, result) is not Wants.WRITE
