"""What a refused caller is told (RFC 6750 3)."""

import pytest

from edgeproxy.errors import GatewayError
from edgeproxy.identity.refusal import invalid, lacking, missing, unavailable


@pytest.mark.parametrize(
    ("error", "status", "field"),
    [
        (missing("x"), 401, b"WWW-Authenticate: Bearer"),
        (invalid("x"), 401, b'WWW-Authenticate: Bearer error="invalid_token"'),
        (lacking("x"), 403, b"WWW-Authenticate: Bearer"),
        (lacking("x", scope=True), 403, b'WWW-Authenticate: Bearer error="insufficient_scope"'),
        (unavailable("x"), 503, b"Retry-After: 1"),
    ],
)
def test_refusals(error: GatewayError, status: int, field: bytes) -> None:
    assert (error.status, error.fields, error.reason) == (status, (field,), "x")
    assert "x" not in error.detail.split()
