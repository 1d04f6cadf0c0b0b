"""Settings of balancing, probes and ejection: what is read, and what is said when it is wrong."""

from __future__ import annotations

import pytest

from edgeproxy.config import ConfigError, Upstream, parse


def upstream(text: str) -> Upstream:
    return parse(f"upstreams: {{ a: {text} }}\nroutes: {{ '*': {{ /: a }} }}").upstreams["a"]


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        upstream(text)
    return [problem.message for problem in error.value.problems]


def test_what_is_there_without_a_word() -> None:
    found = upstream("http://a")
    assert found.balance.by == "round_robin"
    assert found.health is None
    eject = found.eject
    assert (eject.failures, eject.time, eject.max_time, eject.max_ejected) == (5, 10.0, 300.0, 50)
    assert found.targets[0].weight == 1


def test_weights_stand_beside_plain_targets() -> None:
    found = upstream("[http://a, { url: 'http://b:2', weight: 3 }]")
    assert [(str(each), each.weight) for each in found.targets] == [
        ("http://a:80", 1),
        ("http://b:2", 3),
    ]


@pytest.mark.parametrize(
    ("written", "by"),
    [
        ("round_robin", "round_robin"),
        ("least_requests", "least_requests"),
        ("hash", "key"),
        ("{ hash: key }", "key"),
        ("{ hash: address }", "address"),
        ("{ method: hash, hash: address }", "address"),
    ],
)
def test_ways_of_balancing(written: str, by: str) -> None:
    assert upstream(f"{{ targets: http://a, balance: {written} }}").balance.by == by


def test_probes_short_and_long() -> None:
    short = upstream("{ targets: http://a, health: /healthz }").health
    assert short is not None
    assert (short.path, short.status, short.interval, short.timeout) == (
        "/healthz",
        ((200, 200),),
        5.0,
        2.0,
    )
    assert (short.rise, short.fall, short.host) == (2, 3, None)
    long = upstream(
        "{ targets: http://a, health: { path: '/h?deep=1', status: [200-299, 404], interval: 1s, "
        "timeout: 500ms, rise: 1, fall: 5, host: a.example } }"
    ).health
    assert long is not None
    assert (long.path, long.status, long.host) == (
        "/h?deep=1",
        ((200, 299), (404, 404)),
        "a.example",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ url: http://a, weight: 0 }", "'0' is too small; at least 1 would be right"),
        ("{ url: http://a, weight: 257 }", "'257' is too large; at most 256 would be right"),
        ("{ weight: 2 }", "'url' is missing here; add it"),
        ("{ url: http://a, wieght: 2 }", "'wieght' is not a setting here; did you mean 'weight'?"),
    ],
)
def test_wrong_targets(text: str, message: str) -> None:
    assert message in problems(f"{{ targets: [http://b, {text}] }}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "balance: least_request",
            "'least_request' is not a choice here; "
            "'round_robin', 'least_requests' or 'hash' would be right",
        ),
        (
            "balance: { hash: adress }",
            "'adress' is not a choice here; 'key' or 'address' would be right",
        ),
        (
            "balance: { method: round_robin, hash: key }",
            "`hash` means nothing to round_robin; remove one of the two",
        ),
        ("health: healthz", "'healthz' is not a path to ask for; write it as /healthz"),
        ("health: '/a b'", "'/a b' is not a path to ask for; write it as /healthz"),
        ("health: '/a#b'", "'/a#b' is not a path to ask for; write it as /healthz"),
        ("health: {}", "'path' is missing here; add it"),
        (
            "health: { path: /, status: 299-200 }",
            "'299-200' is not a status; write it as 200 or 200-299",
        ),
        (
            "health: { path: /, status: [200, 600] }",
            "'600' is not a status; write it as 200 or 200-299",
        ),
        ("health: { path: /, status: true }", "true is not a status; write it as 200 or 200-299"),
        ("health: { path: /, rise: 0 }", "'0' is too small; at least 1 would be right"),
        ("eject: { max_ejected: 30 }", "'30' is not a share; write it as 30%"),
        ("eject: { max_ejected: 101% }", "'101%' is not a share; write it as 50%, at most 100%"),
        ("eject: { max_time: 5s }", "`max_time` is shorter than `time`; make it at least as long"),
        ("eject: { failure: 5 }", "'failure' is not a setting here; did you mean 'failures'?"),
    ],
)
def test_wrong_settings(text: str, message: str) -> None:
    assert message in problems(f"{{ targets: http://a, {text} }}")
