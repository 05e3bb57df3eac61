"""Every decoder that a stranger's bytes reach, as a function of bytes: what it may raise, and good messages to start.

A target that raises anything else, or does not come back, has a fault. Only what is named here is fuzzed, by the tests
and by `scripts/fuzz`; that nothing is missing here is `test_doors.py`'s business.
"""

from __future__ import annotations

import io
import os
import socket
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import trio

from fakes import wheels
from fakes.chain import DOMAINS
from tallymesh import api, decoding, exchange, messages, program, schema, units, unpacking, values, wire
from tallymesh import network as network_file
from tallymesh import wheels as packages
from tallymesh.client import discover, jobfile, resolved, session
from tallymesh.errors import CallerError, LocalError, RemoteError, TallymeshError
from tallymesh.exchange import Source
from tallymesh.ids import ZERO32, BlobId, blob_id
from tallymesh.units import Input
from tallymesh_ledger import keystore, proofs
from tallymesh_ledger.chain import endpoint, envelope, http
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import config
from tallymesh_node.blobs import serving
from tallymesh_node.http import blobs as http_blobs
from tallymesh_node.http import jobs as http_jobs
from tallymesh_node.http import money as http_money
from tallymesh_node.interfaces import Failure
from tallymesh_node.limits import orders
from tallymesh_node.market.envelope import Opener, bind, seal
from tallymesh_node.market.lane import block_of
from tallymesh_node.network import addresses, keys, nearby_packets, requests
from tallymesh_node.network.reachability import DialbackAnswer, DialbackRequest
from tallymesh_node.payer import announcing, records
from tallymesh_node.quarrels import values as quarrel_values
from tallymesh_node.sandbox import logs, outputs
from tallymesh_node.sandbox.channel import MAX_MESSAGE, Channel
from tallymesh_node.sandbox.jobs import JobSandbox, RunningUnit

NOW = 1_700_000_000
ACCOUNT = AccountKey(b"\x01" * 32)


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    raises: tuple[type[BaseException], ...] = (RemoteError,)


# -- good messages


def example(kind: Any) -> Any:
    """A plain value of a type: enough for a decoder to go through all of it."""
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return inner[0]
    if origin in (types.UnionType, typing.Union):
        return example(inner[0])
    if origin is tuple and Ellipsis not in inner:
        return tuple(example(each) for each in inner)
    if origin in (tuple, list):
        return origin([example(inner[0])])
    if origin in (dict,):
        return {example(inner[0]): example(inner[1])}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(**{name: example(hints[name]) for name in kind.__struct_fields__})
    plain: dict[Any, Any] = {bytes: bytes(32), str: "text", int: 1, float: 1.0, bool: True, Any: 1}
    return plain[kind]


def message(kind: type[schema.Message]) -> schema.Message:
    plain = {"bool": True, "string": "text", "address": ACCOUNT.address, "bytes32": ZERO32}
    return kind(**{name: plain.get(abi.name, 1) for name, abi in schema.fields(kind)})


def signed(kind: type[schema.Message]) -> bytes:
    return ACCOUNT.sign(DOMAINS, message(kind)).body


def bodies() -> dict[str, type[exchange.Body]]:
    """Every body of a request or an answer, by its module and name."""
    found: dict[str, type[exchange.Body]] = {}

    def walk(kind: type[exchange.Body]) -> None:
        for each in kind.__subclasses__():
            found[f"{each.__module__.removeprefix('tallymesh_node.').removeprefix('tallymesh.')}.{each.__name__}"] = (
                each
            )
            walk(each)

    walk(exchange.Body)
    assert {DialbackRequest, DialbackAnswer} <= set(found.values())
    return found


@cache
def peer() -> keys.PeerKey:
    return keys.generate()


@cache
def offer() -> bytes:
    binding = bind(DOMAINS, ACCOUNT, peer(), 1)
    made = message(messages.Offer)
    assert isinstance(made, messages.Offer)
    made = msgspec.structs.replace(
        made,
        peer_id_hash=binding.message.peer_id_hash,
        issued=NOW,
        expires=NOW + 60,
        addresses="/ip4/192.0.2.1/tcp/4001,/ip6/2001:db8::1/tcp/4001",
    )
    return seal(DOMAINS, ACCOUNT, binding, made)


def unit() -> units.Unit:
    return units.Unit(ZERO32, "m:f", (units.Input("item", ZERO32),), b'{"steps":3}', 7, ZERO32)


def spec() -> units.JobSpec:
    return units.JobSpec("map", ZERO32, ZERO32, 0, (units.Stage("map", "m:f", b"{}", 1),), (ZERO32,))


# -- decoders that need something around them


def _file(load: Callable[[Path], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        with TemporaryDirectory(prefix="tallymesh-hostile-") as folder:
            path = Path(folder) / "file"
            path.write_bytes(data)
            path.chmod(0o600)
            return load(path)

    return run


def _offer(data: bytes) -> object:
    return Opener(DOMAINS, lambda: NOW).open(peer().peer_id, data)


def _text(function: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: function(data.decode("utf-8", "surrogateescape"))


def _left(data: bytes) -> object:
    """Metrics, report and failure of a unit, all three the same bytes."""
    with TemporaryDirectory(prefix="tallymesh-hostile-") as folder:
        for name in ("output", "metrics", "report"):
            (Path(folder) / name).write_bytes(data)
        handle = os.open(folder, os.O_RDONLY)
        try:
            return outputs.read(handle, 1 << 20)
        finally:
            os.close(handle)


def _left_failure(data: bytes) -> object:
    with TemporaryDirectory(prefix="tallymesh-hostile-") as folder:
        (Path(folder) / "failure").write_bytes(data)
        handle = os.open(folder, os.O_RDONLY)
        try:
            failure = outputs.read_failure(handle)
        finally:
            os.close(handle)
    assert failure is not None
    return failure


def _events(data: bytes) -> object:
    heard: list[object] = []
    reader = logs.Logs(100, heard.append, lambda name, value: heard.append((name, value)))
    for pipe in ("events", "console"):
        reader.feed(pipe, data)
    return heard


def _config_of_unit(data: bytes) -> object:
    steps = quarrel_values.steps_of(msgspec.structs.replace(unit(), entry=quarrel_values.SEGMENT, config=data))
    assert isinstance(steps, int)
    return steps


def _shown_metrics(data: bytes) -> object:
    """What the payer shows of a receipt must be fit for the events' JSON, too."""
    return msgspec.json.encode(api.EventView(sequence=1, at=0.0, kind="unit", data={"m": announcing.metrics_of(data)}))


def _canary(data: bytes) -> object:
    from tallymesh_node.capacity import Canary

    return msgspec.json.decode(data, type=Canary)


def _record(kind: str) -> Callable[[bytes], object]:
    return lambda data: records.read(kind, data)


def _orders(data: bytes) -> object:
    with TemporaryDirectory(prefix="tallymesh-hostile-") as folder:
        (Path(folder) / orders.NAME).write_bytes(data)
        return orders.load(Path(folder))


def _of_the_sandbox(data: bytes) -> object:
    """One datagram from a job's first process, and the end: nobody waits for ever, no descriptor stays open."""

    async def run() -> None:
        ours, theirs = Channel.pair()
        sandbox = JobSandbox.__new__(JobSandbox)
        sandbox.name, sandbox.units, sandbox._channel, sandbox._error = "job", {}, ours, ""
        sandbox.dead, sandbox._ready = trio.Event(), trio.Event()
        unit = sandbox.units["u"] = RunningUnit()
        with theirs:
            socket.send_fds(theirs, [data[:MAX_MESSAGE] or b"x"], [0])
        await sandbox.serve()
        assert unit.over.is_set()
        if unit.outputs is not None:
            os.close(unit.outputs)

    before = len(os.listdir("/proc/self/fd"))
    trio.run(run)
    assert len(os.listdir("/proc/self/fd")) == before
    return None


def _values_seed() -> list[bytes]:
    return [values.encode({"a": [1, "b", None, 2.5, b"c"], "d": {"e": True}}, what="test")]


def _network() -> bytes:
    return msgspec.json.encode(example(network_file.Network))


def _rpc(data: bytes) -> object:
    import httpx

    for many in (False, True):
        endpoint._answer(http.Answer(200, httpx.Headers(), bytearray(data)), many=many)
    return None


PROGRAM = program.pack({"m.py": b"def f(x):\n    return x\n"})
REPORT = b'{"seconds":{"step":1.0},"steps":3}'
MAX_SENTENCE = 4000
NOTHING: tuple[type[BaseException], ...] = ()


def _wheel(data: bytes) -> object:
    wheel = wheels.wheel("plot", "1.0", data)
    return unpacking.unpack([unpacking.Given(wheel, io.BytesIO(data))], None)


def _wheel_name(data: bytes) -> object:
    return packages.among([Input(data.decode(errors="replace"), bytes(32))])


TARGETS: dict[str, Target] = {
    "offer": Target(_offer, lambda: [offer()]),
    "request": Target(
        lambda data: requests._decode_request.decode(data),
        lambda: [requests.encode_request("lease", b"body")],
        decoding.UNREADABLE,  # `Dispatcher.answer` refuses; test_handlers.py asks it
    ),
    "answer": Target(
        lambda data: requests.decode_answer(data, peer="p"),
        lambda: [requests.encode_answer(b"body"), requests.encode_refusal("busy", "Later.")],
    ),
    "blob question": Target(
        lambda data: serving.decode_question(data, "p"),
        lambda: [msgspec.msgpack.encode(serving.Question(ZERO32, 0, b"ticket"))],
    ),
    "blob header": Target(
        lambda data: serving.decode_header(data, BlobId(blob_id(b"x")), "p"),
        lambda: [requests.encode_answer(msgspec.msgpack.encode(serving.Header(1, [blob_id(b"x")])))],
    ),
    "unit": Target(lambda data: units.decode_unit(data), lambda: [units.encode(unit())]),
    "job template": Target(lambda data: units.decode_spec(data), lambda: [units.encode(spec())]),
    "metrics": Target(lambda data: units.decode_metrics(data), lambda: [b'{"a":1.5,"b":2}']),
    "shown metrics": Target(_shown_metrics, lambda: [b'{"a":1.5,"b":2}'], NOTHING),
    "program": Target(lambda data: program.unpack(data), lambda: [PROGRAM]),
    "wheel": Target(_wheel, lambda: [wheels.build("plot", "1.0", {"plot/__init__.py": wheels.MODULE})]),
    "name of a wheel": Target(_wheel_name, lambda: [b"wheel/00/10/plot-1.0-py3-none-any.whl"]),
    "set of wheels": Target(
        lambda data: resolved._rows.decode(data), lambda: [b'[["plot-1.0-py3-none-any.whl","aa"]]'], decoding.UNREADABLE
    ),
    "captured": Target(
        lambda data: program.read_captured(data),
        lambda: [values.encode({"data": {"a": 1}, "literals": {"b": "(1, 2)"}}, what="test")],
    ),
    "values": Target(lambda data: values.decode(data), _values_seed),
    "config of a unit": Target(_config_of_unit, lambda: [b'{"steps":3}'], NOTHING),
    "multiaddr": Target(
        _text(lambda text: addresses.dialable([text])),
        lambda: [b"/ip4/192.0.2.1/tcp/4001", b"/dns4/a.example/tcp/1"],
        NOTHING,
    ),
    "packet of the local network": Target(
        lambda data: nearby_packets.read(data, "192.168.1.5", "t"),
        lambda: [
            nearby_packets.question(),
            nearby_packets.statement("a", "t", Source(peer().peer_id, ("/ip4/192.168.1.5/tcp/1",))),
        ],
        NOTHING,
    ),
    "bootstrap address": Target(
        _text(addresses.split_address), lambda: [f"/ip4/192.0.2.1/tcp/1/p2p/{peer().peer_id}".encode()], (CallerError,)
    ),
    "block of addresses": Target(
        _text(block_of), lambda: [b"/ip4/192.0.2.1/tcp/1", b"/ip6/fe80::1%eth0/tcp/1"], NOTHING
    ),
    "peer id": Target(_text(keys.parse_peer_id), lambda: [peer().peer_id.encode()]),
    "peer key file": Target(_file(keys.load_or_create), lambda: [peer().pair.private_key.serialize()], (LocalError,)),
    "network file": Target(_file(network_file.load), lambda: [_network()], (CallerError,)),
    "config file": Target(_file(config._from_file), lambda: [b'[client]\nnode = "x"\n'], (CallerError,)),
    "job file": Target(_file(jobfile._read), lambda: [b'map = "a.py:f"\ninputs = [1]\n'], (CallerError,)),
    "keystore": Target(_file(keystore._read), lambda: [b'{"version": 3, "crypto": {}}'], (CallerError, LocalError)),
    "proof": Target(
        lambda data: proofs.decode(data),
        lambda: [
            b'{"seat":"0x00","position":1,"opening":{},"siblings":[],"before":"","links":[{"root":"","start":1}]}'
        ],
        (CallerError,),
    ),
    "transaction": Target(lambda data: envelope.parse(data), lambda: [b"\x02\xc0", b"\xc0"], (ValueError,)),
    "chain's answer": Target(
        _rpc,
        lambda: [b'{"jsonrpc":"2.0","id":1,"result":"0x1"}', b'[{"error":{"code":1,"message":"m"}}]'],
        (endpoint.Busy,),
    ),
    "node's answer": Target(
        lambda data: session._decode(data, api.JobView),
        lambda: [msgspec.json.encode(example(api.JobView))],
        (LocalError,),
    ),
    "node's refusal": Target(
        lambda data: session.refusal(400, data), lambda: [msgspec.json.encode(example(api.Refusal))], NOTHING
    ),
    "api file": Target(
        lambda data: msgspec.json.decode(data, type=discover.Running),
        lambda: [b'{"url":"http://x","token":"t","pid":1}'],
        decoding.UNREADABLE,
    ),
    "submit request": Target(
        lambda data: msgspec.json.decode(data, type=api.SubmitRequest),
        lambda: [msgspec.json.encode(example(api.SubmitRequest))],
        decoding.UNREADABLE,  # test_http.py asks the route
    ),
    "canary": Target(_canary, lambda: [b"{}"], decoding.UNREADABLE),
    "unit's outputs": Target(_left, lambda: [REPORT, b"{}"], (Failure,)),
    "unit's failure": Target(_left_failure, lambda: [b'{"code":"program","sentence":"s","traceback":"t"}'], NOTHING),
    "unit's events": Target(
        _events, lambda: [b'["line","text"]\n', b'["metric",["loss",1.0]]\n', b'["begin",1.0]\n'], NOTHING
    ),
    "bundle of blobs": Target(
        lambda data: http_blobs._bundle.decode(data),
        lambda: [msgspec.msgpack.encode([b"one", b"two"])],
        decoding.UNREADABLE,
    ),
    "results of a map": Target(
        lambda data: http_jobs._results.decode(data),
        lambda: [msgspec.msgpack.encode([ZERO32])],
        decoding.UNREADABLE,
    ),
    "owner's orders": Target(_orders, lambda: [b"{}"], (LocalError,)),
    "withdrawal": Target(
        lambda data: http_money._decoder.decode(data),
        lambda: [msgspec.json.encode(api.WithdrawRequest())],
        decoding.UNREADABLE,
    ),
    "message of the sandbox": Target(
        _of_the_sandbox,
        lambda: [b'{"unit":"u","started":true}', b'{"unit":"u","ended":{"status":0,"cpu_s":1.0}}', b'{"ready":true}'],
        NOTHING,
    ),
    **{
        f"signed {kind.__name__}": Target(
            lambda data, kind=kind: wire.decode(data, kind), lambda kind=kind: [signed(kind)]
        )  # type: ignore[misc]
        for kind in messages.ALL
    },
    **{
        f"body {name}": Target(
            lambda data, kind=kind: exchange.decode(data, kind),
            lambda kind=kind: [exchange.encode(example(kind))],  # type: ignore[misc]
        )
        for name, kind in bodies().items()
    },
    **{
        f"journal {kind.__name__}": Target(
            _record(kind.__name__),
            lambda kind=kind: [msgspec.msgpack.encode(example(kind))],
            (LocalError,),  # type: ignore[misc]
        )
        for kind in records.ALL
    },
}


def check(name: str, data: bytes) -> None:
    attempt(TARGETS[name], data)


def attempt(target: Target, data: bytes) -> None:
    """Raises what is none of the errors that the target may raise."""
    try:
        target.run(data)
    except target.raises as error:
        refusal = error
    else:
        return
    if isinstance(refusal, TallymeshError):
        assert refusal.code
        assert len(refusal.sentence) < MAX_SENTENCE, "a refusal is a sentence, and no copy of what was sent"
