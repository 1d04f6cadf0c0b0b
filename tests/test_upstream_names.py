"""What names lead to, asked of a real DNS server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from dns_support import DNS, start_dns
from real_support import Start
from running_support import Nginx, free_port, wait_for

from edgeproxy.upstream.lookup import Answer
from edgeproxy.upstream.names import Names


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DNS]:
    started = start_dns(tmp_path_factory.mktemp("dns"))
    yield started
    started.child.end()


@pytest.fixture
def names(dns: DNS, tmp_path: Path) -> Names:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n10.9.9.9 written.test W2.test # x.test\n")
    return Names((dns.address,), hosts)


def test_all_addresses_and_the_shorter_time(dns: DNS, names: Names) -> None:
    dns.say(app__test={"A": ["127.0.0.2", "127.0.0.1"], "ttl": 7})
    assert names("app.test") == Answer(("127.0.0.1", "127.0.0.2"), 7)
    dns.say(app__test={"A": [f"127.0.1.{n}" for n in range(1, 200)], "ttl": 7})
    assert len(names("app.test").addresses) == 199, "more than fits into a datagram comes by TCP"
    dns.say(app__test={"A": [f"127.0.{m}.{n}" for m in (1, 2) for n in range(1, 200)], "ttl": 7})
    assert len(names("app.test").addresses) == 256, "no name makes a thousand pools"


def test_ipv6(dns: DNS, names: Names) -> None:
    dns.say(six__test={"AAAA": ["fd00::1"], "ttl": 9})
    assert names("six.test") == Answer(("fd00::1",), 9)
    dns.say(both__test={"A": ["10.0.0.1"], "AAAA": ["::1"]})
    assert names("both.test").addresses == ("10.0.0.1", "::1")


def test_an_alias_lasts_as_long_as_the_shorter_of_both(dns: DNS, names: Names) -> None:
    dns.say(
        www__test={"CNAME": "app.test", "ttl": 5},
        app__test={"A": ["10.0.0.1"], "ttl": 300},
    )
    assert names("www.test") == Answer(("10.0.0.1",), 5)


def test_what_is_not_there_and_what_fails(dns: DNS, names: Names) -> None:
    dns.say(empty__test={}, broken__test={"fail": "servfail"}, dead__test={"fail": "silent"})
    gone = names("nowhere.test")
    assert (gone.addresses, gone.absent, gone.error) == ((), True, "there is no such name")
    empty = names("empty.test")
    assert (empty.addresses, empty.absent, empty.error) == ((), True, "the name has no address")
    broken = names("broken.test")
    assert (broken.addresses, broken.absent) == ((), False)
    assert broken.error == "no DNS server has given an answer"
    began = monotonic()
    dead = names("dead.test")
    assert (dead.absent, dead.error) == (False, "no DNS server has answered in time")
    assert monotonic() - began < 8


def test_a_server_that_knows_nothing_of_ipv6(dns: DNS, names: Names) -> None:
    dns.say(old__test={"A": ["10.0.0.1"], "fail AAAA": "servfail"})
    assert names("old.test").addresses == ("10.0.0.1",)


def test_the_hosts_file_comes_first(dns: DNS, names: Names) -> None:
    dns.say(written__test={"A": ["10.0.0.1"]})
    assert names("written.test").addresses == ("10.9.9.9",)
    assert names("w2.test").addresses == ("10.9.9.9",)
    assert names("x.test").absent, "behind a # there are no names"
    assert names("localhost").addresses == ("127.0.0.1",)


def test_resolv_conf_with_its_search_list(dns: DNS, tmp_path: Path) -> None:
    """The port cannot be said there, so this looks at what is asked, not at the answer."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\nsearch one.test two.test\noptions ndots:2\n")
    resolver = Names(resolv_conf=conf)._resolver()
    wanted = [str(name) for name in resolver._get_qnames_to_try(_relative("app.x"), True)]
    assert wanted == ["app.x.one.test.", "app.x.two.test.", "app.x."]


def _relative(text: str) -> object:
    import dns.name

    return dns.name.from_text(text, None)


def test_what_only_the_system_knows(tmp_path: Path) -> None:
    """No hosts file, no DNS server: the system's other sources are asked."""
    names = Names(hosts=tmp_path / "none", resolv_conf=tmp_path / "none")
    assert names("localhost") == Answer(("127.0.0.1",), 30)
    answer = names("no-such-name.invalid")
    assert (answer.addresses, answer.absent) == ((), False)
    assert "names no DNS server" in answer.error


# -- with a whole gateway ------------------------------------------------------------------------


def answering(gateway: object, path: str = "/") -> int:
    return gateway.ask(path).status  # type: ignore[attr-defined]


@pytest.mark.debian("nginx")
def test_a_service_that_moves(gateway: Start, nginx: object, dns: DNS) -> None:
    """Two services on one port of two addresses: requests follow the name within its time."""
    port = free_port()
    server = 'location / {{ return 200 "{0}"; }} listen {0}:%d;' % port
    nginx(server.format("127.0.0.2")), nginx(server.format("127.0.0.3"))  # type: ignore[operator]
    dns.say(app__test={"A": ["127.0.0.2"], "ttl": 1})
    running = gateway(
        {
            "resolver": dns.address,
            "upstreams": {"app": f"http://app.test:{port}", "late": f"http://late.test:{port}"},
            "routes": {"*": {"/": "app", "/late": "late"}},
        }
    )
    assert running.ask().body == b"127.0.0.2"
    assert running.ask("/late").status == 503
    assert "late.test: no address found: there is no such name" in running.child.said()
    dns.say(app__test={"A": ["127.0.0.3"], "ttl": 1}, late__test={"A": ["127.0.0.2"], "ttl": 1})
    wait_for(lambda: running.ask().body == b"127.0.0.3")
    wait_for(lambda: running.ask("/late").body == b"127.0.0.2")
    dns.say(app__test={"A": ["127.0.0.2", "127.0.0.3"], "ttl": 1})
    wait_for(lambda: {running.ask().body for _ in range(4)} == {b"127.0.0.2", b"127.0.0.3"})
    assert running.log_lines()[0]["upstream"] == f"127.0.0.2:{port}"
    status = running.command("status").stdout
    assert f"http://app.test:{port} (127.0.0.3:{port})" in status

    dns.say(app__test={"fail": "servfail"}, late__test={"fail": "silent"})
    said = "app.test: no address found: no DNS server has given an answer; the old ones stay"
    running.child.wait_until_said(said)
    asked = dns.asked("A app.test")
    wait_for(lambda: dns.asked("A app.test") > asked)
    assert running.child.said().count(said) == 1, "told once"
    assert {running.ask().body for _ in range(4)} == {b"127.0.0.2", b"127.0.0.3"}
    assert "app.test: no DNS server has given an answer" in running.command("status").stdout
    dns.say(app__test={"A": ["127.0.0.2"], "ttl": 1})
    running.child.wait_until_said("app.test: found again")
    wait_for(lambda: {running.ask().body for _ in range(4)} == {b"127.0.0.2"})


@pytest.mark.debian("nginx")
def test_a_dead_dns_server_holds_up_neither_start_nor_reload_nor_end(
    gateway: Start, nginx: object, dns: DNS
) -> None:
    origin: Nginx = nginx("location / { return 200 hello; }")  # type: ignore[operator]
    dead = {f"dead{n}__test": {"fail": "silent"} for n in range(20)}
    dns.say(**dead)
    targets = [f"http://dead{n}.test" for n in range(20)]
    config = {
        "resolver": dns.address,
        "upstreams": {"app": origin.url, "dead": targets},
        "routes": {"*": {"/": "app", "/dead": "dead"}},
    }
    began = monotonic()
    running = gateway(config)
    assert monotonic() - began < 15
    assert running.ask().status == 200
    assert running.ask("/dead").status == 503
    began = monotonic()
    assert running.command("reload").returncode == 0
    assert monotonic() - began < 15
    began = monotonic()
    running.stop()
    assert monotonic() - began < 4, "threads that wait for an answer hold up nothing"
