"""The same job with JSON Web Tokens (ES256) in the place of keys."""

import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from bench import job

ISSUER = "https://id.example.com"
#: More tokens than are remembered, of which each load takes up where the one before began, and a
#: little more than memory further: whatever comes is as new as if it had never come.
NEW = 40_000
_FURTHER = 17_000


@cache
def private_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_set() -> dict[str, Any]:
    """What verifies the tokens of this run."""
    return {"keys": [json.loads(ECAlgorithm.to_jwk(private_key().public_key())) | {"kid": "one"}]}


class Job(job.Job):
    """One whose loads do not all begin with the same request."""

    def requests(self, connection: str = "keep-alive", count: int = 0) -> list[bytes]:
        found = super().requests(connection, count)
        start = 0 if count else next(_loads[self.distinct]) * _FURTHER % len(found)
        return found[start:] + found[:start]


_loads: dict[int, Iterator[int]] = defaultdict(itertools.count)


@cache
def make(callers: int) -> job.Job:
    """A job with so many callers, each with one token."""
    return Job(
        tuple(_caller(number) for number in range(callers)),
        ("/shop",),
        callers,
        "Authorization: Bearer ",
        max(callers, job.DISTINCT),
    )


def _caller(number: int) -> job.Key:
    name, group = f"shop-{number}", f"group{number % 7}"
    claims = {
        "iss": ISSUER,
        "aud": "shop",
        "sub": name,
        "exp": int(time.time()) + 86400,
        "iat": int(time.time()),
        "jti": f"{number:032x}",
        "scope": "read write",
        "groups": [group],
    }
    token = jwt.encode(claims, private_key(), algorithm="ES256", headers={"kid": "one"})
    return job.Key(token, f"partner:{name}", name, group)
