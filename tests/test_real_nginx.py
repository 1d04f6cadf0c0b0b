"""A real nginx behind the gateway: what HTTP's methods and fields come to, and how its
connections are used again."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate

import pytest
from real_support import Start, calling
from running_support import Nginx, wait_for

pytestmark = pytest.mark.debian("nginx")

StartNginx = Callable[..., Nginx]

#: The number of the connection and of the request on it, then what was asked.
LOG = """
log_format told '$connection $connection_requests $status $request_method $uri';
access_log told.log told;
"""
SERVER = """
gzip on; gzip_proxied any; gzip_min_length 100; gzip_types *;
large_client_header_buffers 8 32k;
location /here { return 302 /new?a=b; }
location /moved { return 302 http://127.0.0.1:$server_port/new?a=b; }
location /elsewhere { return 302 http://other.example/new; }
location /echo { add_header X-Length "$http_content_length"; return 200 "$http_x_long"; }
location /big-field { add_header X-Big "$http_x_long"; return 204; }
location /dav { dav_methods PUT DELETE; create_full_put_path on; }
"""
TEXT = b"".join(b"line %d of a text that gzip makes short\n" % n for n in range(2000))


@pytest.fixture
def origin(nginx: StartNginx) -> Nginx:
    started = nginx(SERVER, LOG)
    (started.folder / "html" / "text").write_bytes(TEXT)
    return started


def config(origin: Nginx, **route: object) -> dict[str, object]:
    return {
        "upstreams": {"web": origin.url},
        "routes": {"*": {"/": {"to": "web", **route}}},
    }


def told(origin: Nginx) -> list[list[str]]:
    return [line.split() for line in (origin.folder / "told.log").read_text().splitlines()]


def test_methods(gateway: Start, origin: Nginx) -> None:
    running = gateway(config(origin))
    got = running.ask("/text")
    assert (got.status, got.body) == (200, TEXT)
    assert got.fields["Content-Length"] == str(len(TEXT))
    assert got.fields["Server"] is None, "the services' software is not told"

    head = running.ask("/text", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.fields["Content-Length"] == str(len(TEXT))
    assert head.fields["ETag"] == got.fields["ETag"]

    body = hashlib.sha256(b"seed").digest() * 10_000
    assert running.ask("/dav/put", "PUT", body=body).status == 201
    assert (origin.folder / "html/dav/put").read_bytes() == body
    assert running.ask("/dav/put").body == body
    assert running.ask("/dav/put", "DELETE").status == 204
    assert running.ask("/dav/put").status == 404

    posted = running.ask("/echo", "POST", body=b"x" * 70_000)
    assert (posted.status, posted.fields["X-Length"]) == (200, "70000")
    assert running.ask("/text", "POST", body=b"x").status == 405  # nginx's word, passed on


def test_ranges_and_conditions(gateway: Start, origin: Nginx) -> None:
    running = gateway(config(origin))
    part = running.ask("/text", fields={"Range": "bytes=100-199"})
    assert (part.status, part.body) == (206, TEXT[100:200])
    assert part.fields["Content-Range"] == f"bytes 100-199/{len(TEXT)}"
    several = running.ask("/text", fields={"Range": "bytes=0-9,20-29"})
    assert several.status == 206
    assert several.fields["Content-Type"].startswith("multipart/byteranges")
    assert TEXT[20:30] in several.body
    assert running.ask("/text", fields={"Range": "bytes=9999999-"}).status == 416

    whole = running.ask("/text")
    for condition in (
        {"If-None-Match": whole.fields["ETag"]},
        {"If-Modified-Since": whole.fields["Last-Modified"]},
    ):
        same = running.ask("/text", fields=condition)
        assert (same.status, same.body) == (304, b"")
        assert same.fields["ETag"] == whole.fields["ETag"]
    assert running.ask("/text", fields={"If-Match": '"other"'}).status == 412
    before = {"If-Unmodified-Since": formatdate(0, usegmt=True)}
    assert running.ask("/text", fields=before).status == 412


def test_gzip_passes_as_it_is(gateway: Start, origin: Nginx) -> None:
    running = gateway(config(origin))
    packed = running.ask("/text", fields={"Accept-Encoding": "gzip"})
    assert packed.fields["Content-Encoding"] == "gzip"
    assert packed.fields["Transfer-Encoding"] == "chunked"  # nginx does not know the length
    assert len(packed.body) < len(TEXT) / 5
    assert gzip.decompress(packed.body) == TEXT


def test_large_heads(gateway: Start, origin: Nginx) -> None:
    running = gateway(config(origin))
    long = "v" * 15_000
    assert running.ask("/echo", fields={"X-Long": long}).body == long.encode()
    assert running.ask("/big-field", fields={"X-Long": long}).fields["X-Big"] == long
    many = {f"X-Field-{n}": "value" for n in range(80)}
    assert running.ask("/echo", fields=many).status == 200
    seen = len(told(origin))
    assert running.ask("/echo", fields={"X-Long": "v" * 17_000}).status == 431
    assert running.ask("/echo", fields={f"X-Field-{n}": "v" for n in range(120)}).status == 431
    assert running.ask("/echo?" + "q" * 9_000).status == 414
    assert len(told(origin)) == seen, "what is refused does not reach the service"


def test_redirects(gateway: Start, origin: Nginx) -> None:
    running = gateway(config(origin))
    moved = running.ask("/moved")
    assert moved.status == 302
    assert moved.fields["Location"] == f"{running.url}/new?a=b"
    # nginx, and others, make a URL of their own of the Host that they are sent and their port.
    here = running.ask("/here")
    assert (here.status, here.fields["Location"]) == (302, f"{running.url}/new?a=b")
    put = running.ask("/dav/new", "PUT", body=b"x")
    assert (put.status, put.fields["Location"]) == (201, f"{running.url}/dav/new")
    assert running.ask("/elsewhere").fields["Location"] == "http://other.example/new"
    assert running.ask("/absent").status == 404


def test_a_redirect_under_a_host_of_its_own(gateway: Start, origin: Nginx) -> None:
    running = gateway(config(origin, host="internal.example"))
    here = running.ask("/here")
    assert (here.status, here.fields["Location"]) == (302, f"{running.url}/new?a=b")


def test_one_connection_after_the_other_serves_all(gateway: Start, origin: Nginx) -> None:
    """Twenty clients, one by one, each with a connection of its own: one to nginx is enough."""
    running = gateway(config(origin))
    for _ in range(20):
        assert running.ask("/text").status == 200
    wait_for(lambda: len(told(origin)) == 20)
    assert [line[0] for line in told(origin)] == [told(origin)[0][0]] * 20
    assert [line[1] for line in told(origin)] == [str(n) for n in range(1, 21)]


def test_the_pool_is_no_larger_than_what_was_needed_at_once(gateway: Start, origin: Nginx) -> None:
    running = gateway(config(origin))
    with calling(running, "/text", count=4) as callers:
        wait_for(lambda: len(callers.ended) > 200)
    assert callers.statuses.keys() == {200}
    wait_for(lambda: len(told(origin)) == len(callers.ended))
    assert len(Counter(line[0] for line in told(origin))) <= 4


def test_nginx_closing_after_each_answer(gateway: Start, nginx: StartNginx) -> None:
    """A service that keeps nothing alive: every request finds a new connection, none fails."""
    origin = nginx("keepalive_timeout 0; location / { return 200 hello; }", LOG)
    running = gateway(config(origin))
    with calling(running, "/", count=2) as callers:
        wait_for(lambda: len(callers.ended) > 100)
    assert callers.statuses.keys() == {200}
    wait_for(lambda: len(told(origin)) == len(callers.ended))
    assert {line[1] for line in told(origin)} == {"1"}


def test_nginx_closing_when_it_likes(gateway: Start, nginx: StartNginx) -> None:
    """It ends a connection after five requests; a request that meets the end is repeated."""
    origin = nginx("keepalive_requests 5; location / { return 200 hello; }", LOG)
    running = gateway(config(origin))
    with calling(running, "/", count=4) as callers:
        wait_for(lambda: len(callers.ended) > 400)
    assert callers.statuses.keys() == {200}
    assert max(int(line[1]) for line in told(origin)) == 5
