"""Puts a checked chain and its key into an OpenSSL context."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from edgeproxy.certs.scan import Chain


def load(context: SSL.Context, chain: Chain) -> None:
    """Put a chain and its key into a context, beside those of other key types.

    Raises SSL.Error if OpenSSL refuses. Only `use_certificate_chain_file` keeps the
    intermediates per certificate, so the bytes that were checked are given to it as a file.
    """
    with as_file(chain.chain_pem) as path:
        context.use_certificate_chain_file(path)
    # Found sound when it was read (`pem`); validating an RSA key again would take 41 ms.
    key = load_pem_private_key(chain.key_pem, None, unsafe_skip_rsa_key_validation=True)
    context.use_privatekey(key)  # type: ignore[arg-type]
    context.check_privatekey()


def refusal(chain: Chain) -> str | None:
    """Try a chain in a context of its own (0.3 ms): why OpenSSL refuses it, or None."""
    try:
        load(SSL.Context(SSL.TLS_SERVER_METHOD), chain)
    except (SSL.Error, ValueError, OSError) as error:
        return openssl_words(error)
    return None


@contextlib.contextmanager
def as_file(data: bytes) -> Iterator[str]:
    """Give a path under which the bytes can be read: in memory where Linux allows it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("edgeproxy-certificate")
        try:
            os.write(descriptor, data)
            path = f"/proc/self/fd/{descriptor}"
            if os.path.exists(path):
                yield path
                return
        finally:
            os.close(descriptor)
    # macOS, or no /proc. Certificates are no secret; the key never goes this way.
    with tempfile.NamedTemporaryFile(prefix="edgeproxy-") as file:
        file.write(data)
        file.flush()
        yield file.name


def openssl_words(error: Exception) -> str:
    """Return OpenSSL's reasons on one line: `ee key too small`."""
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return ", ".join(str(item[-1]) for item in error.args[0]) or "no reason given"
    return str(error) or type(error).__name__
