"""The calls into pyOpenSSL's private binding that the TLS stream makes per read and write.

``OpenSSL.SSL.Connection.recv`` allocates a buffer and ``send`` makes a context manager for each
call; together with their error handling they cost more than OpenSSL itself does for a small
record. This module and :mod:`edgeproxy.certs.contexts` are the only ones that touch the binding.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from OpenSSL import SSL

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


def handshake(handle: Any) -> Wants | str | None:
    """Go on with the handshake; ``None`` once it is done, a text when it failed: OpenSSL's words,
    or "" when the client just went away."""
    result = _lib.SSL_do_handshake(handle)
    if result == 1:
        return None
    answer = _ANSWERS.get(_lib.SSL_get_error(handle, result))
    return _failure() if answer is None else answer


def shut_down(handle: Any) -> bool:
    """Send ``close_notify``; ``False`` when the kernel has no room for it now."""
    result = _lib.SSL_shutdown(handle)
    return result >= 0 or wants(handle, result) is not Wants.WRITE
