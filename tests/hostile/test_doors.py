"""Nothing that takes a stranger's bytes can be forgotten: the list (doors.py) is compared with the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import trio

from fakes.node import FakeNode
from fakes.peers import TOPIC, hasten, peer
from hostile import doors, scan
from hostile.targets import TARGETS, bodies
from hostile.targets_of_states import STATES
from tallymesh_node.blobs import BlobStore, serving, transfer
from tallymesh_node.http import ApiServer
from tallymesh_node.http.access import Access

NAMED = {
    target.strip() for value in doors.PARSERS.values() if not value.startswith(doors.OWN) for target in value.split(",")
}


def test_every_place_that_parses_is_in_the_list() -> None:
    found = scan.parsers()
    assert found - doors.PARSERS.keys() == set(), "new: fuzz it (targets.py), or say whose bytes they are"
    assert doors.PARSERS.keys() - found == set(), "gone: take it out of the list"


def test_every_target_that_the_list_names_is_fuzzed() -> None:
    assert TARGETS.keys() | STATES.keys() >= NAMED


def test_every_request_is_in_the_list_and_is_fuzzed() -> None:
    names = {kind.NAME: name for name, kind in bodies().items() if hasattr(kind, "NAME")}
    assert names.keys() == doors.REQUESTS.keys()
    assert all(f"body {name}" in TARGETS for name in names.values())


def test_every_place_that_serves_is_in_the_list() -> None:
    assert scan.serving() == doors.SERVING.keys()
    served = {name.strip() for names in doors.SERVING.values() for name in names.split(",")}
    assert doors.REQUESTS.keys() <= served


def test_every_route_is_in_the_list(tmp_path: Path) -> None:
    application = ApiServer(FakeNode(tmp_path), tmp_path)._application(Access("token", ()))
    found = {
        f"{route.method} {route.resource.canonical}"
        for route in application.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert found == doors.ROUTES.keys()


async def test_every_protocol_and_topic_of_a_host_is_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasten(monkeypatch)
    async with peer() as host, trio.open_nursery() as nursery:
        transfer.BlobExchange(host, BlobStore(tmp_path), lambda peer, blob, ticket: False, nursery)
        router = host._router
        assert {name.removeprefix(f"/{TOPIC}") for name in router._ours} == doors.STREAMS
        assert {str(name) for name, handler in router._theirs.items() if handler is not None} == doors.LIBP2P
        assert host.gossip._pubsub.topic_validators.keys() == {f"{TOPIC}/offers"}
        assert serving.protocol_name(TOPIC) in router._ours


def test_a_parser_that_is_added_is_found() -> None:
    """The scan itself: each of its spellings, in a function and at a module's level."""
    source = "import json\nD = msgspec.msgpack.Decoder(int)\nclass A:\n    def b(self):\n        return json.loads(x)\n"
    found = {(scope, scan.dotted(call.func)) for scope, call in scan.calls(ast.parse(source))}
    assert found == {("", "msgspec.msgpack.Decoder"), ("A.b", "json.loads")}
    assert all(scan.is_parser(name) for _, name in found)
    assert not scan.is_parser("self.load")
