"""Finds in the source what takes bytes: calls of parsers, request handlers, HTTP routes. Reads the syntax tree only, so
that nothing has to be imported, and nothing that is not imported is missed."""

from __future__ import annotations

import ast
import functools
import re
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


_PARSER = re.compile(rf"(.*\.)?({'|'.join(map(re.escape, PARSERS))})")


def is_parser(name: str) -> bool:
    return _PARSER.fullmatch(name) is not None


@functools.cache
def every_call() -> tuple[tuple[str, str, str, bool], ...]:
    """(file, scope, name, whether it has arguments) of every call of the product. Each file is parsed once, and no tree
    is kept: the collector would walk over all of them for the rest of the run."""
    return tuple(
        (path.relative_to(ROOT).as_posix(), scope, dotted(call.func), bool(call.args))
        for path in files()
        for scope, call in calls(ast.parse(path.read_text()))
    )


def parsers() -> set[str]:
    """`file::function` of every place that calls a parser; `file` alone for the module's own level."""
    return {
        f"{place}::{scope}" if scope else place
        for place, scope, name, _ in every_call()
        # The contracts' model is an arithmetic of values: no bytes come to it.
        if "/model/" not in place and is_parser(name)
    }


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of the innermost class and function that it stands in, in no order."""
    left: list[tuple[ast.AST, str]] = [(tree, "")]
    while left:
        node, scope = left.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield scope, child
            inside = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            left.append((child, f"{scope}.{child.name}".lstrip(".") if inside else scope))  # type: ignore[attr-defined]


REGISTER = ("serve", "serve_streams", "set_topic_validator", "set_stream_handler")


def serving() -> set[str]:
    """`file::function` of every place that registers a handler of requests, streams or gossip."""
    return {
        f"{place}::{scope}" if scope else place
        for place, scope, name, arguments in every_call()
        # Peers talk to the node alone.
        if place.startswith("node/") and name.rpartition(".")[2] in REGISTER and arguments
    }
