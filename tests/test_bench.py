"""The pure parts of the bench: what it sends, and how figures become a table."""

import os
import re
from pathlib import Path

from bench import cpu, job, table, tokens
from bench.load import Answer
from edgeproxy.identity import apikey
from edgeproxy.identity.remembered import MOST


def test_the_head_is_a_browsers() -> None:
    head = job.make().requests(count=1)[0]
    fields = head.decode("ascii").split("\r\n")[1:-2]
    assert len(fields) == 16
    assert 650 <= len(head) <= 750


def test_one_cycle_uses_every_key_and_path_and_repeats_no_head() -> None:
    made = job.make()
    requests = made.requests()
    assert len(set(requests)) == job.DISTINCT
    assert len({request.split(b" ")[1] for request in requests}) == 1000
    used = {request.partition(b"X-API-Key: ")[2].partition(b"\r\n")[0] for request in requests}
    assert used == {key.credential.encode() for key in made.keys}


def test_one_in_ten_is_a_post_whose_body_has_the_length_it_says() -> None:
    posts = [one for one in job.make().requests(count=200) if one.startswith(b"POST ")]
    assert len(posts) == 20
    for post in posts:
        head, _, body = post.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(body) in head
        assert len(body) == job.BODY


def test_a_large_job_is_used_over_its_whole_breadth() -> None:
    made = job.make(keys=5000, prefixes=2000)
    text = b"".join(made.requests())
    assert made.keys[4990].credential.encode() in text
    assert b" /shop1998/items/" in text


def test_of_a_large_job_a_few_callers_and_prefixes_may_be_active() -> None:
    text = b"".join(job.make(keys=5000, prefixes=2000, active=10).requests())
    used = set(re.findall(rb"X-API-Key: ([^\r]+)", text))
    assert len(used) == 10
    assert len(set(re.findall(rb" (/shop[0-9]*)/items", text))) == 10


def test_keys_are_in_the_gateways_form() -> None:
    assert all(apikey.well_formed(key.credential.encode()) for key in job.make(20).keys)


def test_new_tokens_come_again_when_they_are_forgotten() -> None:
    assert tokens.PART > MOST
    made = tokens.New(job.make(tokens.NEW).keys, ("/shop",), tokens.NEW, "Bearer ", tokens.NEW)
    loads = [made.requests() for _ in range(4)]
    keys = [{one.partition(b"Bearer ")[2][:90] for one in load} for load in loads]
    assert [len(each) for each in keys] == [tokens.PART] * 4
    assert keys[0].isdisjoint(keys[1] | keys[2])
    assert keys[3] == keys[0]


def test_ratios_are_taken_within_a_round() -> None:
    row = table.Row("requests", "requests", "µs", base="nginx")
    # The machine is slow in the second round; of the third, only the peer had trouble.
    for number, (base, other) in enumerate([(30.0, 60.0), (100.0, 200.0), (50.0, 250.0)]):
        row.add("nginx", number, base)
        row.add("edgeproxy", number, other)
    assert row.ratio("edgeproxy") == 2.0
    assert row.median("edgeproxy") == 200.0
    assert row.span("nginx") == (30.0, 100.0)


def test_a_round_that_failed_for_the_base_is_left_out_of_the_ratio() -> None:
    row = table.Row("requests", "requests", "µs", base="nginx")
    row.add("nginx", 2, 10.0)
    row.add("edgeproxy", 1, 70.0)
    row.add("edgeproxy", 2, 30.0)
    assert row.ratio("edgeproxy") == 3.0


def test_the_page_keeps_what_stands_around_the_table(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "performance.md"
    table.write(page, "first\n")
    page.write_text("before\n" + page.read_text() + "after\n")
    table.write(page, "second\n")
    text = page.read_text()
    assert "first" not in text
    assert text.startswith("before\n")
    assert text.endswith(f"{table.BEGIN}\nsecond\n{table.END}\nafter\n")


def test_chunks_of_an_answer_are_put_together() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = Answer(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert answer.status == 200
    assert answer.body == b"abcde"


def test_cpu_of_a_tree_is_what_the_kernel_says_of_this_process() -> None:
    used = os.times()
    own = used.user + used.system + used.children_user + used.children_system
    assert abs(cpu.seconds(os.getpid()) - own) < 0.5
    assert os.getpid() in cpu.tree(os.getppid())
