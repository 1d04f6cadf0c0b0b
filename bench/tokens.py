"""The same job with JSON Web Tokens (ES256) in the place of keys."""

import itertools
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from bench import job

ISSUER = "https://id.example.com"
PART = 17_000
"""Tokens of one load that shall be new: a few more than are remembered, so that they stay new
however often they come in turn."""
NEW = 3 * PART
"""Loads take the parts in turn; until one comes again the others have taken its place."""


CALLERS = 1000
"""As many as the job has keys: what a caller costs who is new is no matter of its token."""


@cache
def private_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_set() -> dict[str, Any]:
    """What verifies the tokens of this run."""
    return {"keys": [json.loads(ECAlgorithm.to_jwk(private_key().public_key())) | {"kid": "one"}]}


class New(job.Job):
    """A job whose callers show tokens that are not remembered."""

    def requests(self, connection: str = "keep-alive", count: int = 0) -> list[bytes]:
        start = 0 if count else next(_loads) % 3 * PART
        return [
            self.request(
                path=f"/shop/items/{number % 1000:06d}?page=2&lang=en",
                key=key,
                connection=connection,
                post=number % 10 == 9,
            )
            for number, key in enumerate(self.keys[start : start + (count or PART)])
        ]


_loads = itertools.count()


@cache
def make(count: int) -> job.Job:
    """A job with so many tokens; a caller has one, or several that came one after the other."""
    return (New if count == NEW else job.Job)(
        tuple(_token(number) for number in range(count)),
        ("/shop",),
        count,
        "Authorization: Bearer ",
        max(count, job.DISTINCT),
    )


def _token(number: int) -> job.Key:
    caller = number % CALLERS
    name, group = f"shop-{caller}", f"group{caller % 7}"
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
