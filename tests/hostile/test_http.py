"""The HTTP port as a hostile program of the same machine uses it, with the token and without."""

from __future__ import annotations

import gzip
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from aiohttp import http_parser
from hypothesis import given, settings

from fakes.node import FakeNode, Served, serve
from hostile.doors import ROUTES
from hostile.inputs import NASTY, cut, hostile
from hostile.targets import spec
from tallymesh import api, units
from tallymesh.ids import ZERO32, blob_id
from tallymesh_node.http import answers, crowd, server

PATIENCE_S = 120.0
PLAIN = {"verify": False, "trust_env": False}  # loopback: no certificates, which take long to load, and no proxy


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(FakeNode(tmp_path)) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {served.token}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=PATIENCE_S, **PLAIN) as session:
        yield session


def line(served: Served) -> socket.socket:
    parts = urlsplit(served.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_S)


def head(served: Served, request: str, *more: str, token: bool = True) -> bytes:
    lines = [f"{request} HTTP/1.1", f"Host: {urlsplit(served.url).netloc}", *more]
    if token:
        lines.append(f"Authorization: Bearer {served.token}")
    return "\r\n".join([*lines, "", ""]).encode()


def closed(connection: socket.socket) -> bool:
    """Whether the other side ends it, within some patience; what it says before is read."""
    connection.settimeout(PATIENCE_S)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def wait_until(condition: Callable[[], bool], why: str = "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


BLOB = blob_id(b"a blob")
SEEDS = {
    "POST /v1/jobs": [msgspec.json.encode(api.SubmitRequest(spec=BLOB.hex(), terms=api.Terms(budget_wei="9")))],
    "PUT /v1/blobs/{id}": [b"a blob"],
    "POST /v1/blobs": [msgspec.msgpack.encode([b"one", b"two"])],
    "POST /v1/blobs/missing": [msgspec.msgpack.encode([ZERO32])],
    "POST /v1/withdraw": [msgspec.json.encode(api.WithdrawRequest())],
}


def ask(client: httpx.Client, route: str, body: bytes) -> httpx.Response:
    method, path = route.replace("{id}", BLOB.hex()).split(" ")
    return client.request(method, path, content=body)


def test_every_route_with_a_body_has_a_good_one_here() -> None:
    assert SEEDS.keys() == {route for route, reads in ROUTES.items() if reads}


@pytest.mark.parametrize("route", SEEDS)
def test_a_body_that_nobody_can_read_is_the_callers_error(client: httpx.Client, route: str) -> None:
    for body in (*NASTY, *cut(SEEDS[route])):
        answer = ask(client, route, body)
        assert answer.status_code < 500, (body[:40], answer.text)
        if answer.status_code >= 400:
            assert answer.json()["code"] not in ("", "internal")


@pytest.mark.parametrize("route", SEEDS)
def test_a_good_body_that_was_changed_is_taken_or_refused(client: httpx.Client, route: str) -> None:
    @settings(max_examples=15)
    @given(hostile(SEEDS[route]))
    def run(body: bytes) -> None:
        answer = ask(client, route, body)
        assert answer.status_code < 500, (body, answer.text)

    run()


@pytest.mark.parametrize("route", sorted(ROUTES.keys() - {"POST /v1/node/stop"}))  # that one ends the node
def test_strange_ids_queries_and_headers_are_refused_on_every_route(client: httpx.Client, route: str) -> None:
    method, path = route.split(" ")
    for name in ("0" * 63, "%00", "..%2f..", "%ff%fe", "x" * 4000, "٣"):
        address = path.replace("{id}", name)
        for query in ("", "?after=-1", "?after=1e9&follow=0", "?after=" + "9" * 400, "?after=%ff&follow=0"):
            headers = {"Last-Event-ID": "not a number"}
            answer = client.request(method, address + query, headers=headers, content=b"")
            assert answer.status_code < 500, (address, query, answer.text)
        if "{id}" not in path:
            break


TERMS = [
    {"deadline_s": 1 << 62},
    {"workers_max": 1 << 62},
    {"require": {"cores": 1 << 40}},
    {"require": {"memory_gib": 1e300}},
    {"require": {"disk_gib": 1e300}},
    {"require": {"gpu": 1 << 40}},
    {"budget_wei": "9" * 29 + "0"},
    {"max_price_wei": "²"},
]


@pytest.mark.parametrize("terms", TERMS, ids=[next(iter(terms)) + str(at) for at, terms in enumerate(TERMS)])
def test_terms_that_no_order_can_hold_are_refused_before_the_job_is_made(
    client: httpx.Client, terms: dict[str, object]
) -> None:
    template = units.encode(spec())
    ids = client.post("/v1/blobs", content=msgspec.msgpack.encode([template, b""])).json()["ids"]
    body = json.dumps({"spec": ids[0], "terms": {"budget_wei": "9", **terms}})
    answer = client.post("/v1/jobs", content=body)
    assert answer.status_code == 400
    assert answer.json()["code"] in ("bad_terms", "bad_amount")


def test_silent_and_slow_strangers_keep_nobody_out(served: Served, client: httpx.Client) -> None:
    """More than the door holds, some silent, some in the middle of a line: the ones that wait longest go."""
    assert client.get("/v1/node").status_code == 200  # a connection that is known, and stays open
    before = len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        lines = [stack.enter_context(line(served)) for _ in range(2 * crowd.MAX_STRANGERS)]
        for number, each in enumerate(lines):
            if number % 2:
                try:
                    each.sendall(b"GET /v1/node HTTP/1.1\r\nHo")
                except ConnectionError:
                    assert number < crowd.MAX_STRANGERS
        assert closed(lines[0])
        with httpx.Client(base_url=served.url, headers=client.headers, timeout=PATIENCE_S, **PLAIN) as another:
            for _ in range(3):
                assert another.get("/v1/node").status_code == 200
            assert client.get("/v1/node").status_code == 200
        assert served.crowd.strangers <= crowd.MAX_STRANGERS
        assert len(os.listdir("/proc/self/fd")) - before <= len(lines) + crowd.MAX_STRANGERS + 8  # both ends are here
    wait_until(lambda: not served.crowd.strangers)


@pytest.mark.parametrize("bounded", [True, False])
def test_a_flood_of_header_lines_is_cut_after_a_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bounded: bool
) -> None:
    """All at once, and one by one. Without the bound as many as a stranger sends are kept, for as long as it likes."""
    most = server.MAX_HEADERS
    if not bounded:
        monkeypatch.setattr(server, "MAX_HEADERS", 10**6)
    with serve(FakeNode(tmp_path)) as served:
        begin = head(served, "GET /livez", token=False)[:-2]
        for at_once in (True, False):
            lines = [b"X-%d: y\r\n" % number for number in range(50 * most if at_once else 2 * most)]
            answer = b""
            with line(served) as connection, suppress(ConnectionError):  # what is cut may end so
                connection.sendall(begin)
                for each in [b"".join(lines)] if at_once else lines:
                    connection.sendall(each)
                connection.sendall(b"\r\n")
                answer = connection.recv(12)
            assert (answer == b"HTTP/1.1 200") is not bounded, answer
            assert answer in (b"", b"HTTP/1.0 400", b"HTTP/1.1 200")
    assert not caplog.records, "whoever sends what cannot be read would fill the log"


class Line:
    """A connection as the crowd sees it."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.cut = False

    def get_extra_info(self, name: str) -> Any:
        assert name == "peername"
        return (self.where, 1)

    def abort(self) -> None:
        self.cut = True


def come(found: crowd.Crowd, where: str, count: int = 1) -> list[Line]:
    lines = [Line(where) for _ in range(count)]
    for each in lines:
        found.enter(each)  # type: ignore[arg-type]
    return lines


def test_an_address_has_a_share_of_the_places_and_its_own_flood_makes_room() -> None:
    """Of an API on a public address. The flood pushes out itself, whoever else waits."""
    found = crowd.Crowd(strangers=16, of_address=4)
    owner = come(found, "203.0.113.7", 2)
    flood = come(found, "198.51.100.1", 100)
    assert [each.cut for each in flood] == [True] * 96 + [False] * 4
    assert found.strangers == 6
    mapped = come(found, "::ffff:198.51.100.1")
    assert flood[96].cut, "the same address, as a socket of both families says it"
    subnet = [come(found, f"2001:db8::{number}")[0] for number in range(1, 9)]
    assert [each.cut for each in subnet] == [True] * 4 + [False] * 4, "one machine has a whole /64"
    assert not any(each.cut for each in (*owner, *mapped))
    for each in subnet:
        found.leave(each)  # type: ignore[arg-type]
        found.leave(each)  # type: ignore[arg-type]
    assert found.strangers == 6
    assert not any(each.cut for each in come(found, "2001:db8::1", 4)), "who went has no place"


def test_where_all_places_are_taken_the_most_crowded_address_makes_room_and_this_machine_last() -> None:
    found = crowd.Crowd(strangers=16, of_address=4)
    here = come(found, "127.0.0.1", 10)
    others = [come(found, f"198.51.100.{number}")[0] for number in range(30)]
    assert [each.cut for each in here] == [True] * 5 + [False] * 5, (
        "its programs have more than a share only if it is free"
    )
    assert [each.cut for each in others] == [True] * 19 + [False] * 11
    (late,) = come(found, "::1")
    assert (late.cut, here[5].cut, here[9].cut) == (False, True, False)
    found.know(here[9])  # type: ignore[arg-type]
    come(found, "127.0.0.2", 100)
    assert (found.known, found.strangers, here[9].cut) == (1, 16, False), "nobody pushes out who has shown the token"


@pytest.mark.parametrize("in_turns", [True, False])
def test_a_question_that_waits_with_many_strangers_behind_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_turns: bool
) -> None:
    """The loop stood still: all of them are in the kernel's queue, and come in before anybody's words are read."""
    monkeypatch.setattr(crowd.Crowd.__init__, "__defaults__", (64, 512, 32))
    if not in_turns:
        monkeypatch.setattr(server, "ENTER_A_TURN", server.BACKLOG)
    with serve(FakeNode(tmp_path)) as served:
        with ExitStack() as stack:

            def stand_still() -> socket.socket:
                owner = stack.enter_context(line(served))
                owner.sendall(head(served, "GET /v1/node", "Connection: close"))
                for _ in range(100):
                    stack.enter_context(line(served))
                return owner

            owner = served.do(stand_still)
            answer = b""
            with suppress(ConnectionError):
                while part := owner.recv(65536):
                    answer += part
            assert answer.startswith(b"HTTP/1.1 200") is in_turns
            wait_until(lambda: served.crowd.strangers == 64)
        wait_until(lambda: not served.crowd.strangers)


def test_whoever_was_let_in_as_the_api_ends_is_cut(tmp_path: Path) -> None:
    """The loop stood still: they are let in while it ends, and aiohttp has not heard of them."""
    with ExitStack() as stack:
        with serve(FakeNode(tmp_path)) as served:
            wait_until(lambda: served.crowd.made == 0)
            lines = served.do(lambda: [stack.enter_context(line(served)) for _ in range(20)])
        for each in lines:
            each.settimeout(60)
            with suppress(ConnectionError):
                assert each.recv(1) == b""
        assert served.crowd.made == 0


def test_who_knows_the_token_is_bounded_too_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd.Crowd.__init__, "__defaults__", (4, 3, 4))
    with serve(FakeNode(tmp_path)) as served, ExitStack() as stack:
        statuses = []
        for _ in range(4):
            each = stack.enter_context(line(served))
            each.sendall(head(served, "GET /v1/node"))
            statuses.append(each.recv(100).split(b" ")[1])
        assert statuses == [b"200", b"200", b"200", b"503"]


@pytest.mark.parametrize("unpacks", [False, True])
def test_a_body_that_unpacks_to_a_thousand_times_its_size_is_never_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpacks: bool
) -> None:
    monkeypatch.setattr(server, "UNPACKS", unpacks)
    unpacked = 0
    begin = http_parser.DeflateBuffer.__init__

    def counted(self: http_parser.DeflateBuffer, *args: Any, **more: Any) -> None:
        nonlocal unpacked
        unpacked += 1
        begin(self, *args, **more)

    monkeypatch.setattr(http_parser.DeflateBuffer, "__init__", counted)
    bomb = gzip.compress(bytes(4 << 20))
    with (
        serve(FakeNode(tmp_path)) as served,
        httpx.Client(base_url=served.url, **PLAIN) as stranger,
    ):
        for token in ("", f"Bearer {served.token}"):
            headers = {"Content-Encoding": "gzip", "Authorization": token}
            answer = stranger.post("/v1/blobs", content=bomb, headers=headers, timeout=PATIENCE_S)
            assert answer.status_code == (415 if token else 401)
        assert unpacked == (2 if unpacks else 0)


def test_a_sender_that_stops_in_the_middle_is_cut(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "STALL_S", 0.2)
    for request in (f"PUT /v1/blobs/{BLOB.hex()}", "POST /v1/blobs", "POST /v1/jobs", "POST /v1/withdraw"):
        with line(served) as connection:
            connection.sendall(head(served, request, "Content-Length: 1000") + b"some")
            answer = b""
            while b"too_slow" not in answer:
                part = connection.recv(65536)
                assert part, (request, answer)
                answer += part
            assert answer.startswith(b"HTTP/1.1 408"), request


@pytest.mark.slow
def test_a_reader_that_takes_nothing_is_cut(
    served: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = bytes(32 << 20)  # more than the kernel keeps for both ends
    name = blob_id(big).hex()
    assert client.put(f"/v1/blobs/{name}", content=big).status_code == 201
    monkeypatch.setattr(answers, "STALL_S", 0.2)
    known = served.crowd.known
    with line(served) as connection:
        connection.sendall(head(served, f"GET /v1/blobs/{name}"))
        wait_until(lambda: served.crowd.known > known)
        wait_until(lambda: served.crowd.known <= known, "it holds its connection, its file and a chunk for ever")
