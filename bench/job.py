"""The job: who calls, and with which bytes. All loads and all peers take it from here.

Nothing of it is random, so two runs send the same. Keys and paths advance apart from each other:
a proxy that only remembers whole heads finds no head again before `DISTINCT` others have passed.
"""

import hashlib
from typing import NamedTuple

from edgeproxy.identity import apikey

HOST = "api.example.com"
DISTINCT = 10_000  # heads in one cycle of the load
BODY = 1024  # bytes, of the origin's answer and of a POST
CONNECTIONS = 32
RATE = 1_000_000  # per key, so that the window is kept and never refuses …
WINDOW = 10  # … in seconds
DOWNLOAD = 100_000_000  # bytes
DOWNLOAD_PATH = "/shop/files/download.bin"
ECHO_PATH = "/shop/echo"  # the origin tells what it was told

_FIELDS = """\
Host: {host}
Connection: {connection}
sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"
sec-ch-ua-mobile: ?0
sec-ch-ua-platform: "Linux"
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/140.0.0.0 Safari/537.36
Accept: application/json, text/plain, */*
{shows}{key}
Origin: https://shop.example.com
Sec-Fetch-Site: same-site
Sec-Fetch-Mode: cors
Sec-Fetch-Dest: empty
Referer: https://shop.example.com/
Accept-Encoding: gzip, deflate, br
Accept-Language: de-DE,de;q=0.9,en;q=0.8
Cookie: theme=dark; visit=2417
"""


class Key(NamedTuple):
    """One caller: the credential it sends, and what the services behind are told about it."""

    credential: str
    id: str
    name: str
    group: str


class Job(NamedTuple):
    """Callers, and the prefixes under which the paths lie (one route each where a peer routes).

    `active`: how many of either a load uses, evenly spread; fewer than are known, or all. `shows`
    is what stands before a credential, `distinct` how many heads there are in one cycle.
    """

    keys: tuple[Key, ...]
    prefixes: tuple[str, ...]
    active: int = 1000
    shows: str = "X-API-Key: "
    distinct: int = DISTINCT

    def requests(self, connection: str = "keep-alive", count: int = 0) -> list[bytes]:
        """`count` (one cycle) of whole requests; each tenth is a POST of 1 KiB; 1,000 paths."""
        keys, prefixes, active = len(self.keys), len(self.prefixes), self.active
        key_step, prefix_step = max(1, keys // active), max(1, prefixes // active)
        return [
            self.request(
                path=f"{self.prefixes[number % active * prefix_step % prefixes]}"
                f"/items/{number % 1000:06d}?page=2&lang=en",
                key=self.keys[(number * 7 + number // 1000) % active * key_step % keys],
                connection=connection,
                post=number % 10 == 9,
            )
            for number in range(count or self.distinct)
        ]

    def request(
        self, path: str, key: Key, connection: str = "keep-alive", post: bool = False
    ) -> bytes:
        """One request as a browser would send it: 16 fields (18 with a body)."""
        fields = _FIELDS.format(
            host=HOST, connection=connection, shows=self.shows, key=key.credential
        )
        if not post:
            return _lines(f"GET {path} HTTP/1.1\n{fields}\n")
        body = f"Content-Type: application/json\nContent-Length: {BODY}\n"
        return _lines(f"POST {path} HTTP/1.1\n{fields}{body}\n") + b"x" * BODY


def make(keys: int = 1000, prefixes: int = 1, active: int = 1000) -> Job:
    """A job with so many callers and so many path prefixes (one prefix: `/shop`), see `Job`."""
    return Job(
        tuple(_key(number) for number in range(keys)),
        tuple(f"/shop{number or ''}" for number in range(prefixes)),
        active,
    )


def _lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("ascii")


def _key(number: int) -> Key:
    """A credential in edgeproxy's own form; the same for the same number."""
    made = apikey.make(hashlib.sha512(b"bench %d" % number).digest()[: apikey.RANDOM_BYTES])
    return Key(made.credential, made.id, f"shop-{number}", f"group{number % 7}")
