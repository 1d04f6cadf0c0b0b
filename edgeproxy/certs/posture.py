"""What all contexts of a listener are made with: versions, ciphers, groups, options, ALPN."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from OpenSSL import SSL
from twisted.logger import Logger

from edgeproxy.certs.clients import DEPTH
from edgeproxy.transport.openssl import MODES, callback, one_record_a_read

_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_lib: Any = SSL._lib  # type: ignore[attr-defined]
_log = Logger()

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

# SSL_MODE_NO_AUTO_CHAIN (openssl/ssl.h) has no name in pyOpenSSL. Without it OpenSSL looks, for
# each handshake with a chain of one certificate, for issuers among the CAs that clients are
# verified by, and would send those.
_MODE_NO_AUTO_CHAIN = 8

HTTP_1_1 = (b"http/1.1",)

_OK = 0  # SSL_TLSEXT_ERR_OK
_ALERT = 2  # SSL_TLSEXT_ERR_ALERT_FATAL


def new_context(alpn: object) -> SSL.Context:
    """Return a context with everything but a certificate. ``alpn`` was made by `alpn_callback`.

    OpenSSL copies options, modes, versions and groups from the base context when the
    connection is made, and takes ciphers, certificates and ALPN from the one it is switched
    to: all contexts are made alike, so that nobody has to remember which.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(OPTIONS)
    context.set_mode(MODES | _MODE_NO_AUTO_CHAIN)
    one_record_a_read(context)
    context.set_cipher_list(TLS12_CIPHERS)
    context.set_tls13_ciphersuites(TLS13_CIPHERS)
    # Sessions are resumed by ticket; a cache of our own would hold memory for each client.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # Only clients that are asked for a certificate are verified, see `clients`.
    context.set_verify_depth(DEPTH)
    if not any(_lib.SSL_CTX_set1_curves_list(context._context, groups) for groups in GROUPS):
        raise ValueError("OpenSSL knows none of the groups " + GROUPS[-1].decode("ascii"))
    _lib.SSL_CTX_set_alpn_select_cb(context._context, alpn, _ffi.NULL)
    return context


def alpn_callback(protocols: tuple[bytes, ...]) -> object:
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
                    return _OK
        except BaseException:
            with contextlib.suppress(BaseException):
                _log.failure("handshake refused: choosing a protocol failed")
        return _ALERT

    signature = (
        "int (*)(SSL *, unsigned char **, unsigned char *, unsigned char *, unsigned int, void *)"
    )
    return callback(signature, pick, _ALERT)


def _offered(offer: bytes) -> Iterator[bytes]:
    """Yield the protocols of an ALPN offer, each with its length before it; OpenSSL checked it."""
    position = 0
    while position < len(offer):
        end = position + 1 + offer[position]
        yield offer[position + 1 : end]
        position = end
