"""Finds in the source what takes bytes: calls of parsers, request handlers, HTTP routes. Reads the syntax tree only, so
that nothing has to be imported, and nothing that is not imported is missed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "protocol/tallymesh",
    "scheduler/tallymesh_scheduler",
    "ledger/tallymesh_ledger",
    "learning/tallymesh_learning",
    "node/tallymesh_node",
)
# Dotted ends of calls that turn bytes or plain values into something. Decoders of our own (wire.decode and the like)
# are made of these and not listed again where they are used.
PARSERS = (
    "msgspec.msgpack.Decoder",
    "msgspec.msgpack.decode",
    "msgspec.json.Decoder",
    "msgspec.json.decode",
    "msgspec.convert",
    "json.loads",
    "json.load",
    "tomllib.loads",
    "tomllib.load",
    "safetensors.torch.load",
    "safetensors.torch.load_file",
    "safetensors.safe_open",
    "torch.load",
    "numpy.load",
    "np.load",
    "numpy.frombuffer",
    "np.frombuffer",
    "struct.unpack",
    "struct.unpack_from",
    "_LENGTH.unpack",
    "base58.b58decode",
    "deserialize_private_key",
    "ParseFromString",
    "FromString",
    "ast.literal_eval",
    "zipfile.ZipFile",
    "tarfile.open",
    "yaml.safe_load",
    "plistlib.loads",
    "Multiaddr",
    "rlp.decode",
    "abi_decode",
    "recv_fds",
    "DNSIncoming",
)


def files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a call's function; "" for anything else than names."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def is_parser(name: str) -> bool:
    return any(name == parser or name.endswith("." + parser) for parser in PARSERS)


def parsers() -> set[str]:
    """`file::function` of every place that calls a parser; `file` alone for the module's own level."""
    found: set[str] = set()
    for path in files():
        place = path.relative_to(ROOT).as_posix()
        if "/model/" in place:
            continue  # the contracts' model: an arithmetic of values, no bytes come to it
        for scope, call in calls(ast.parse(path.read_text())):
            if is_parser(dotted(call.func)):
                found.add(f"{place}::{scope}" if scope else place)
    return found


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of the innermost class and function that it stands in."""

    def walk(node: ast.AST, scope: tuple[str, ...]) -> Iterator[tuple[str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield ".".join(scope), child
            inside = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            yield from walk(child, (*scope, child.name) if inside else scope)  # type: ignore[attr-defined]

    yield from walk(tree, ())


REGISTER = ("serve", "serve_streams", "set_topic_validator", "set_stream_handler")


def serving() -> set[str]:
    """`file::function` of every place that registers a handler of requests, streams or gossip."""
    found: set[str] = set()
    for path in files():
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith("node/"):
            continue  # peers talk to the node alone
        for scope, call in calls(ast.parse(path.read_text())):
            if dotted(call.func).rpartition(".")[2] in REGISTER and call.args:
                found.add(f"{place}::{scope}" if scope else place)
    return found
