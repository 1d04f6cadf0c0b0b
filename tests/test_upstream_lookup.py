"""Looking names up: in threads that nobody waits for longer than he wants to."""

from __future__ import annotations

import threading
from time import monotonic

from running_support import wait_for

from edgeproxy.upstream.lookup import Answer, Lookups, in_order, look_up_all


def test_the_order_of_addresses_means_nothing() -> None:
    assert in_order(["10.0.0.10", "10.0.0.9", "fd00::2", "fd00::1", "10.0.0.9"]) == (
        "10.0.0.9",
        "10.0.0.10",
        "fd00::1",
        "fd00::2",
    )
    assert in_order(["::1", "127.0.0.1"]) == ("127.0.0.1",)
    assert in_order(["::1"]) == ("::1",)


def test_a_dead_server_holds_up_only_the_names_that_are_asked_of_it() -> None:
    hang = threading.Event()

    def slow(host: str) -> Answer:
        if host.startswith("dead"):
            hang.wait(30)
        return Answer(("10.0.0.1",))

    began = monotonic()
    answers = look_up_all(["dead1", "live", "dead2"], slow, 0.2)
    assert monotonic() - began < 5
    assert [answers[host].addresses for host in answers] == [(), ("10.0.0.1",), ()]
    assert answers["dead1"].error == "no answer in time"
    hang.set()


def test_more_names_than_threads() -> None:
    answered: set[str] = set()
    lookups = Lookups(lambda host: Answer((host,)))
    hosts = {f"10.0.0.{n}" for n in range(1, 200)}
    for host in hosts:
        lookups.ask(host, lambda name, answer: answered.add(answer.addresses[0]))
    wait_for(lambda: answered == hosts)
    wait_for(lambda: lookups._threads == 0)


def test_a_look_up_that_fails_in_our_own_code_is_an_answer_too() -> None:
    def broken(host: str) -> Answer:
        raise RuntimeError("broken")

    assert "broken" in look_up_all(["app"], broken, 5)["app"].error
