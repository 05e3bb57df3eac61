"""The API over real HTTP on loopback: what it serves, and what it refuses."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from fakes.node import FakeNode, Served, serve
from tallymesh.api import Problem, ReceiptView, SubmitRequest, Terms, encode
from tallymesh.client.discover import running
from tallymesh.errors import ChainError, LocalError, RemoteError
from tallymesh.ids import ZERO32, blob_id
from tallymesh.units import JobSpec, Stage
from tallymesh.units import encode as encode_unit
from tallymesh_node.http import blobs, events
from tallymesh_node.http.access import API_FILE, Published

PATIENCE_S = 120.0  # for what takes milliseconds


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(FakeNode(tmp_path)) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {served.token}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=60, verify=False, trust_env=False) as session:
        yield session


def raw(served: Served, request: bytes, *, first_only: bool = False) -> bytes:
    """What a plain socket gets: all until the end, or the first packet alone."""
    parts = urlsplit(served.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as line:
        line.sendall(request)
        line.settimeout(PATIENCE_S)
        answer = b""
        while chunk := line.recv(65536):
            answer += chunk
            if first_only:
                break
    return answer


def submit(client: httpx.Client, count: int = 3) -> Any:
    items = [f"item {index}".encode() for index in range(count)]
    blobs = [b"program", *items]
    assert client.post("/v1/blobs", content=msgspec.msgpack.encode(blobs)).status_code == 201
    spec = encode_unit(
        JobSpec("map", blob_id(b"program"), ZERO32, 0, (Stage("map", "m:f", b"{}", 1),), tuple(map(blob_id, items)))
    )
    assert client.put(f"/v1/blobs/{blob_id(spec).hex()}", content=spec).status_code == 201
    return client.post("/v1/jobs", content=encode(SubmitRequest(spec=blob_id(spec).hex(), terms=Terms(budget_wei="9"))))


# -- who is let in


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Authorization": b"Bearer \xff"}]
)
@pytest.mark.parametrize("path", ["/v1/node", "/metrics", "/v1/jobs", f"/v1/blobs/{'0' * 64}", "/nothing"])
def test_without_the_token_nothing_is_told(served: Served, path: str, header: dict[str, str | bytes]) -> None:
    answer = httpx.get(served.url + path, headers=header, verify=False, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorised"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_page_that_rebinds_its_name_to_loopback_is_refused_even_with_the_token(
    client: httpx.Client, served: Served
) -> None:
    port = urlsplit(served.url).port
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", ""):
        assert client.get("/v1/node", headers={"Host": host}).status_code == 421
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        assert client.get("/v1/node", headers={"Host": host}).status_code == 200


def test_there_are_no_cors_headers(client: httpx.Client) -> None:
    answer = client.options("/v1/node", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_probes_need_no_token_and_tell_nothing(served: Served) -> None:
    assert httpx.get(served.url + "/livez", verify=False, trust_env=False).text == "ok\n"
    assert httpx.get(served.url + "/readyz", verify=False, trust_env=False).status_code == 200
    served.node.is_ready = False
    assert httpx.get(served.url + "/readyz", verify=False, trust_env=False).status_code == 503


def test_the_files_are_private_and_go_with_the_node(tmp_path: Path) -> None:
    with serve(FakeNode(tmp_path)) as served:
        published = json.loads((tmp_path / "api.json").read_text())
        assert (published["url"], published["token"]) == (served.url, served.token)
        for name in ("api.json", "api.token"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert not (tmp_path / "api.json").exists()
    with serve(FakeNode(tmp_path)) as again:
        assert again.token == served.token
    (tmp_path / "api.token").chmod(0o644)
    with serve(FakeNode(tmp_path)) as after_a_leak:
        assert after_a_leak.token != served.token


def test_a_network_file_whose_path_is_no_text_is_not_told_and_the_node_starts(tmp_path: Path) -> None:
    for name, told in (
        (b"/srv/jos\xe9/network.json", ""),
        ("/srv/josé/network.json".encode(), "/srv/josé/network.json"),
    ):
        Published(tmp_path, "http://127.0.0.1:9", "token", Path(os.fsdecode(name))).write()
        found = running(tmp_path / API_FILE)
        assert found is not None
        assert found.network == told


# -- hostile requests


@pytest.mark.parametrize("name", ["..%2f..%2fapi.token", "A" * 64, "0" * 63, "0" * 63 + "٣", "0" * 63 + "%00"])
def test_what_is_not_a_blob_id_never_reaches_the_store(client: httpx.Client, name: str) -> None:
    for answer in (client.get(f"/v1/blobs/{name}"), client.put(f"/v1/blobs/{name}", content=b"x")):
        assert answer.status_code == 400
        assert answer.json()["code"] == "bad_blob_id"


def test_dots_in_the_path_lead_nowhere(served: Served) -> None:
    for path in (b"/v1/blobs/../../api.token", b"/v1/blobs/..%2f..%2f..%2fetc%2fpasswd", b"//etc/passwd"):
        request = b"GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n"
        answer = raw(served, request % (path, urlsplit(served.url).netloc.encode(), served.token.encode()))
        assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400"))
        assert served.token.encode() not in answer


def test_garbage_and_endless_headers_end_one_connection_only(served: Served, client: httpx.Client) -> None:
    assert raw(served, b"\x16\x03\x01 not http\r\n\r\n").startswith(b"HTTP/1.0 400")
    endless = b"GET /v1/node HTTP/1.1\r\nX: " + b"a" * 60_000 + b"\r\n\r\n"
    assert raw(served, endless).startswith(b"HTTP/1.0 400")
    assert client.get("/v1/node").status_code == 200


def test_oversize_bodies_are_refused_before_they_are_read(served: Served, client: httpx.Client) -> None:
    head = (
        f"PUT /v1/blobs/{'0' * 64} HTTP/1.1\r\nHost: {urlsplit(served.url).netloc}\r\nConnection: close\r\n"
        f"Authorization: Bearer {served.token}\r\nContent-Length: {blobs.MAX_BLOB_BYTES + 1}\r\n\r\n"
    )
    assert raw(served, head.encode(), first_only=True).startswith(b"HTTP/1.1 413")
    assert client.post("/v1/jobs", content=b" " * 70_000).status_code == 413
    assert client.post("/v1/jobs", content=iter([b" " * 40_000] * 2)).status_code == 413  # no length is declared
    too_many = msgspec.msgpack.encode([b""] * (blobs.MAX_BUNDLE_BLOBS + 1))
    assert client.post("/v1/blobs", content=too_many).status_code == 413


def test_an_upload_without_a_length_is_refused(client: httpx.Client) -> None:
    answer = client.put(f"/v1/blobs/{blob_id(b'x').hex()}", content=iter([b"x"]))
    assert (answer.status_code, answer.json()["code"]) == (411, "length_required")


# -- blobs


def test_a_blob_under_another_name_is_refused_and_not_kept(served: Served, client: httpx.Client) -> None:
    wrong = blob_id(b"other")
    answer = client.put(f"/v1/blobs/{wrong.hex()}", content=b"bytes")
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_hash")
    assert client.get(f"/v1/blobs/{wrong.hex()}").status_code == 404
    assert not list((served.node.home / "blobs" / "parts").iterdir())


def test_an_upload_that_breaks_off_leaves_nothing(served: Served) -> None:
    parts = urlsplit(served.url)
    with socket.create_connection((parts.hostname, parts.port)) as line:
        line.sendall(
            f"PUT /v1/blobs/{'0' * 64} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {served.token}\r\nContent-Length: 1000\r\n\r\nabc".encode()
        )
    drafts = served.node.home / "blobs" / "parts"
    _until(lambda: not list(drafts.iterdir()))


def test_a_big_blob_goes_up_and_comes_down(client: httpx.Client) -> None:
    data = bytes(range(256)) * 20_000  # 5 MB: many chunks
    url = f"/v1/blobs/{blob_id(data).hex()}"
    assert client.head(url).status_code == 404
    assert client.put(url, content=data).status_code == 201
    assert client.put(url, content=data).status_code == 200
    head = client.head(url)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(data)), b"")
    assert client.get(url).content == data


def test_a_bundle_and_what_is_missing(client: httpx.Client) -> None:
    answer = client.post("/v1/blobs", content=msgspec.msgpack.encode([b"a", b"b"]))
    assert answer.json() == {"ids": [blob_id(b"a").hex(), blob_id(b"b").hex()]}
    asked = msgspec.msgpack.encode([blob_id(b"a"), blob_id(b"c"), blob_id(b"b")])
    assert client.post("/v1/blobs/missing", content=asked).json() == {"missing": [1]}
    for body in (b"\xc1", msgspec.msgpack.encode(["text"]), msgspec.msgpack.encode([b"short"])):
        assert client.post("/v1/blobs/missing", content=body).status_code == 400


# -- jobs


def test_a_job_is_submitted_looked_into_and_cancelled(served: Served, client: httpx.Client) -> None:
    answer = submit(client)
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert served.payer.terms[job["id"]].budget_wei == "9"
    assert [row["id"] for row in client.get("/v1/jobs").json()] == [job["id"]]
    assert "memory" in client.get(f"/v1/jobs/{job['id']}/why").json()[0]["sentence"]
    early = client.get(f"/v1/jobs/{job['id']}/results")
    assert (early.status_code, early.json()["code"]) == (409, "not_finished")
    assert client.post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
    assert served.payer.cancelled == [job["id"]]
    assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"


def test_results_name_the_outputs(served: Served, client: httpx.Client) -> None:
    job = submit(client).json()
    served.do(lambda: served.payer.finish_map(job["id"], [b"one", b"two"]))
    assert client.get(f"/v1/jobs/{job['id']}/results").json() == {
        "kind": "map",
        "outputs": [blob_id(b"one").hex(), blob_id(b"two").hex()],
        "checkpoint": "",
    }


def test_a_job_whose_blobs_are_not_here_is_refused(served: Served, client: httpx.Client) -> None:
    nowhere = encode(SubmitRequest(spec="00" * 32, terms=Terms(budget_wei="1")))
    assert client.post("/v1/jobs", content=nowhere).json()["code"] == "missing_blobs"
    spec = encode_unit(JobSpec("map", ZERO32, ZERO32, 0, (Stage("map", "m:f", b"{}", 1),), (blob_id(b"gone"),)))
    client.post("/v1/blobs", content=msgspec.msgpack.encode([spec]))
    body = encode(SubmitRequest(spec=blob_id(spec).hex(), terms=Terms(budget_wei="1")))
    answer = client.post("/v1/jobs", content=body)
    assert answer.json()["code"] == "missing_blobs"
    assert blob_id(b"gone").hex()[:8] in answer.json()["sentence"]
    assert not served.payer.views


@pytest.mark.parametrize(
    "terms",
    [
        {"budget_wei": "-1"},
        {"budget_wei": "1.5"},
        {"budget_wei": 5},
        {"budget_wei": "9" * 40},
        {"budget_wei": "٣"},
        {"budget_wei": "1", "verify": "never"},
        {"budget_wei": "1", "require": {"cores": 0}},
        {"budget_wei": "1", "deadline_s": 0},
        {},
    ],
)
def test_terms_that_make_no_sense_are_refused(served: Served, client: httpx.Client, terms: dict[str, Any]) -> None:
    answer = client.post("/v1/jobs", content=json.dumps({"spec": "00" * 32, "terms": terms}))
    assert answer.status_code == 400
    assert answer.json()["code"] in ("bad_terms", "bad_amount", "bad_request")


def test_an_unknown_job_is_404_everywhere(client: httpx.Client) -> None:
    for path in ("", "/why", "/events", "/receipts", "/audits", "/results"):
        answer = client.get(f"/v1/jobs/nope{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_job")
    assert client.post("/v1/jobs/nope/cancel").status_code == 404


def test_a_node_without_the_role_says_so(tmp_path: Path) -> None:
    with serve(FakeNode(tmp_path, submits=False)) as served:
        answer = httpx.get(served.url + "/v1/jobs", headers={"Authorization": f"Bearer {served.token}"}, verify=False)
        assert (answer.status_code, answer.json()["code"]) == (409, "no_submit_role")
        assert "tallymesh up" in answer.json()["remedy"]


def test_rows_come_in_pages(served: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(client).json()["id"]
    monkeypatch.setattr("tallymesh_node.http.jobs.MAX_ROWS", 2)
    row = ReceiptView(
        seat="", account="", position=0, unit="", end="", leaf="", tally=1, accepted=True, void=False, metrics={}
    )
    served.payer.receipt_rows[job] = [msgspec.structs.replace(row, position=at) for at in range(5)]
    seen, after = [], 0
    while after is not None:
        page = client.get(f"/v1/jobs/{job}/receipts", params={"after": after}).json()
        seen += [row["position"] for row in page["rows"]]
        after = page["next"]
    assert seen == [0, 1, 2, 3, 4]
    assert client.get(f"/v1/jobs/{job}/receipts?after=-1").status_code == 400


# -- errors


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (RemoteError("bad", "It lied.", peer="12D3"), 502, "remote"),
        (LocalError("disk", "Full."), 507, "local"),
        (LocalError("other", "Broken."), 503, "local"),
        (ChainError("reverted", "No.", reverted=True), 502, "chain"),
        (ChainError("unreachable", "No.", reverted=False), 503, "chain"),
    ],
)
def test_an_error_says_whose_fault_it_is(
    served: Served, client: httpx.Client, error: Exception, status: int, kind: str
) -> None:
    def fail() -> None:
        raise error

    served.node.view = fail  # type: ignore[assignment, method-assign]
    answer = client.get("/v1/node")
    assert (answer.status_code, answer.json()["kind"]) == (status, kind)
    assert answer.json()["peer"] == getattr(error, "peer", "")


def test_a_bug_tells_nothing_of_the_inside(
    served: Served, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("the key is XYZZY")

    served.node.view = fail  # type: ignore[assignment, method-assign]
    with caplog.at_level(logging.ERROR):
        answer = client.get("/v1/node")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "XYZZY" not in answer.text
    assert "XYZZY" in caplog.text


# -- events


def read_events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for text in answer.iter_lines():
        if text.startswith("data: "):
            yield json.loads(text.removeprefix("data: "))


def test_events_come_as_they_happen_and_end_with_the_job(served: Served, client: httpx.Client) -> None:
    job = submit(client).json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        stream = read_events(answer)
        assert next(stream)["kind"] == "status"
        served.do(lambda: served.payer.say(job, "log", line="two\nlines"))
        event = next(stream)
        assert (event["sequence"], event["data"]["line"]) == (2, "two\nlines")
        served.do(lambda: served.payer.finish_map(job, [b"one"]))
        assert [event["kind"] for event in stream] == ["unit", "done"]


def test_a_reader_that_lost_the_line_goes_on_where_it_was(served: Served, client: httpx.Client) -> None:
    job = submit(client).json()["id"]
    served.do(lambda: [served.payer.say(job, "log", line=str(at)) for at in range(1000)])
    served.do(lambda: served.payer.finish(job))
    for how in ({"headers": {"Last-Event-ID": "400"}}, {"params": {"after": 400}}):
        with client.stream("GET", f"/v1/jobs/{job}/events", **how) as answer:  # type: ignore[arg-type]
            assert [event["sequence"] for event in read_events(answer)] == list(range(401, 1003))
    with client.stream("GET", f"/v1/jobs/{job}/events", params={"after": 1002}) as answer:
        assert list(read_events(answer)) == []
    assert client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "-3"}).status_code == 400


NOT_A_SEQUENCE = ["-3", "+3", "1.0", "1e3", "0x10", "٣", "²", "1,2", "5 ", "id", "9" * 19, "%00", "1\t2"]


@pytest.mark.parametrize("text", NOT_A_SEQUENCE)
def test_what_is_no_sequence_is_refused_and_never_taken_for_the_beginning(
    served: Served, client: httpx.Client, text: str
) -> None:
    job = submit(client).json()["id"]
    path = f"/v1/jobs/{job}/events"
    assert client.get(path, params={"after": text, "follow": 0}).json()["code"] == "bad_request"
    if text.isascii() and text.strip() == text:
        assert client.get(path, params={"follow": 0}, headers={"Last-Event-ID": text}).json()["code"] == "bad_request"


@pytest.mark.parametrize("after", [0, 1, 399])
def test_a_reader_is_told_which_events_are_kept_no_more(served: Served, client: httpx.Client, after: int) -> None:
    job = submit(client).json()["id"]
    served.do(lambda: [served.payer.say(job, "log", line=str(at)) for at in range(500)])
    served.do(lambda: served.payer.finish(job))
    served.payer.dropped = 400
    with client.stream("GET", f"/v1/jobs/{job}/events", params={"after": after}) as answer:
        notice, *rest = read_events(answer)
    assert (notice["kind"], notice["data"]["code"], notice["sequence"]) == ("warning", events.MISSING, 400)
    assert f"from {after + 1} to 400" in notice["data"]["sentence"]
    assert [event["sequence"] for event in rest] == list(range(401, 503))
    for more in (400, 450):  # whoever has the notice is not told again
        with client.stream("GET", f"/v1/jobs/{job}/events", params={"after": more}) as answer:
            assert [event["sequence"] for event in read_events(answer)] == list(range(more + 1, 503))


def test_a_reader_whose_last_event_the_node_lost_is_told_and_gets_what_comes(
    served: Served, client: httpx.Client
) -> None:
    """A backup that was put back, or the last half second before a crash; and an id that belongs elsewhere."""
    job = submit(client).json()["id"]
    for future in ("2", "100000", "9" * 18):
        with client.stream("GET", f"/v1/jobs/{job}/events?follow=0", headers={"Last-Event-ID": future}) as answer:
            (notice,) = read_events(answer)
        assert (notice["kind"], notice["data"]["code"], notice["sequence"]) == ("warning", events.MISSING, 1)
        assert f"no event {future} here, the newest is 1" in notice["data"]["sentence"]
    with client.stream("GET", f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "77"}) as answer:
        stream = read_events(answer)
        next(stream)
        served.do(lambda: served.payer.finish(job))
        assert [(event["sequence"], event["kind"]) for event in stream] == [(2, "done")]


def test_a_reader_that_is_too_slow_is_told_what_it_missed_on_the_way(
    served: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_BATCH", 10)
    job = submit(client).json()["id"]
    served.do(lambda: [served.payer.say(job, "log", line=str(at)) for at in range(100)])
    served.do(lambda: served.payer.finish(job))
    whole = served.payer.events

    def drop(job_id: str, after: int) -> Any:
        served.payer.dropped = 60 if after >= 10 else 0
        return whole(job_id, after)

    served.payer.events = drop  # type: ignore[method-assign]
    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        found = list(read_events(answer))
    (notice,) = (event for event in found if event["kind"] == "warning")
    assert notice["sequence"] == 60
    got = [event["sequence"] for event in found if event is not notice]
    assert got == [*range(1, 11), *range(61, 103)]


def test_a_reader_that_will_not_wait_gets_what_there_is(served: Served, client: httpx.Client) -> None:
    job = submit(client).json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/events", params={"follow": 0}) as answer:
        assert [event["kind"] for event in read_events(answer)] == ["status"]


def test_a_silent_job_sends_signs_of_life(
    served: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    job = submit(client).json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        lines = answer.iter_lines()
        while next(lines) != ": alive":
            pass


def test_a_reader_that_goes_away_is_no_longer_waited_for(served: Served, client: httpx.Client) -> None:
    job = submit(client).json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        stream = read_events(answer)  # held: a generator that is collected closes the connection
        next(stream)
        _until(lambda: served.payer.waiting == 1)
    _until(lambda: served.payer.waiting == 0)
    assert client.get("/v1/node").status_code == 200


def test_an_error_in_mid_stream_cuts_the_line(served: Served, client: httpx.Client) -> None:
    job = submit(client).json()["id"]

    def fail(job_id: str, after: int) -> Any:
        raise ZeroDivisionError

    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        stream = read_events(answer)
        next(stream)
        served.payer.wait_events = fail  # type: ignore[method-assign]
        served.payer.events = fail  # type: ignore[method-assign]
        served.do(lambda: served.payer._news.set())
        with pytest.raises(httpx.TransportError):  # a short answer would look like the end of the job
            list(stream)


def test_a_node_that_ends_cuts_its_streams_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tallymesh_node.http.server.SHUTDOWN_S", 5 * PATIENCE_S
    )  # for answers that would end by themselves
    with serve(FakeNode(tmp_path)) as served:
        headers = {"Authorization": f"Bearer {served.token}"}
        with httpx.Client(
            base_url=served.url, headers=headers, timeout=PATIENCE_S, verify=False, trust_env=False
        ) as client:
            job = submit(client).json()["id"]
            with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
                stream = read_events(answer)
                next(stream)
                served.do(served.end)
                with pytest.raises(httpx.RemoteProtocolError):  # not a clean end: the job goes on
                    list(stream)


def test_open_streams_are_bounded(served: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(client).json()["id"]
    parts = urlsplit(served.url)
    lines = []
    for _ in range(events.MAX_STREAMS + 1):
        line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        line.request("GET", f"/v1/jobs/{job}/events", headers={"Authorization": f"Bearer {served.token}"})
        lines.append((line, line.getresponse()))
    assert [answer.status for _, answer in lines] == [200] * events.MAX_STREAMS + [503]
    for line, answer in lines:
        answer.close()
        line.close()
    _until(lambda: client.get(f"/v1/jobs/{job}/events", params={"after": "x"}).status_code == 400)


# -- the rest


def test_metrics_are_the_nodes_own_and_nothing_else(served: Served, client: httpx.Client) -> None:
    submit(client)
    served.node.problems = (Problem(code="unstaked", sentence="No slot."),)
    text = client.get("/metrics").text
    for line in (
        "tallymesh_peers 3.0",
        "tallymesh_units_done_total 7.0",
        "tallymesh_leases_open 2.0",
        'tallymesh_jobs{status="matching"} 1.0',
        'tallymesh_problem{code="unstaked"} 1.0',
        'tallymesh_http_requests_total{method="POST",status="2xx"} 2.0',
    ):
        assert line in text.splitlines()
    assert "python_gc" not in text
    raw(served, f"PROPFIND / HTTP/1.1\r\nHost: {urlsplit(served.url).netloc}\r\nConnection: close\r\n\r\n".encode())
    assert "PROPFIND" not in client.get("/metrics").text


def test_stop_asks_the_daemon(served: Served, client: httpx.Client) -> None:
    assert client.post("/v1/node/stop").status_code == 202
    assert served.node.stopped.wait(PATIENCE_S)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    from tallymesh_node.http import ApiServer

    with socket.create_server(("127.0.0.1", 0)) as other:
        server = ApiServer(FakeNode(tmp_path), tmp_path, port=other.getsockname()[1])
        with pytest.raises(LocalError, match="cannot listen"):
            server._listen()


def _until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_withdrawal_is_handed_to_carriers(served: Served, client: httpx.Client) -> None:
    answer = client.post("/v1/withdraw", json={"slots": 1, "deposit": True, "fee_max_wei": "70"})
    assert answer.status_code == 200
    assert answer.json() == {"transaction": "ab" * 32, "fee_wei": str(10**16), "carrier": "12D3KooWCarrier"}
    [asked] = served.node.withdrawn
    assert (asked.slots, asked.deposit, asked.fee_max_wei) == (1, True, "70")


@pytest.mark.parametrize(
    "body",
    [
        {"slots": -1},
        {"slots": 51},
        {"slots": "1"},
        {"fee_max_wei": "1.5"},
        {"fee_max_wei": "-1"},
        {"fee_max_wei": "9" * 30},
    ],
)
def test_a_withdrawal_that_makes_no_sense_is_refused(
    served: Served, client: httpx.Client, body: dict[str, Any]
) -> None:
    assert client.post("/v1/withdraw", json=body).status_code == 400
    assert served.node.withdrawn == []


@pytest.mark.slow
def test_a_withdrawal_may_come_in_pieces(served: Served, client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"slots": 1, "fee_max'
        time.sleep(0.1)  # on its way alone
        yield b'_wei": "70"}'

    assert client.post("/v1/withdraw", content=pieces()).status_code == 200
    [asked] = served.node.withdrawn
    assert (asked.slots, asked.fee_max_wei) == (1, "70")


def test_a_withdrawal_without_end_is_refused(served: Served, client: httpx.Client) -> None:
    assert client.post("/v1/withdraw", content=(b" " * 1024 for _ in range(8))).json()["code"] == "too_large"
    assert served.node.withdrawn == []


def test_where_nobody_carries_it_the_owner_is_told(served: Served, client: httpx.Client) -> None:
    served.node.carriers = False
    answer = client.post("/v1/withdraw", json={})
    assert answer.status_code >= 500
    assert answer.json()["code"] == "no_carrier"
