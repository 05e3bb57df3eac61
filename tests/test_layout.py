"""House rules that no linter knows: folders, import directions, what the wheel installs."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "tallymesh": ROOT / "protocol/tallymesh",
    "tallymesh_scheduler": ROOT / "scheduler/tallymesh_scheduler",
    "tallymesh_ledger": ROOT / "ledger/tallymesh_ledger",
    "tallymesh_learning": ROOT / "learning/tallymesh_learning",
    "tallymesh_node": ROOT / "node/tallymesh_node",
}
MAY_IMPORT = {
    "tallymesh": {"tallymesh"},
    "tallymesh_scheduler": {"tallymesh", "tallymesh_scheduler"},
    "tallymesh_ledger": {"tallymesh", "tallymesh_ledger"},
    "tallymesh_learning": {"tallymesh", "tallymesh_learning"},
    "tallymesh_node": set(PACKAGES),
}
# The client offers backend="local" by starting the learning package in a child process; nothing imports it at the top.
LATE = {("tallymesh", "tallymesh_learning")}


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            yield package, path


class Seen(NamedTuple):
    """What the rules ask of a module."""

    imported: set[str]
    at_the_top: set[str]  # imported outside of functions
    called: set[str]
    constants: set[Any]
    silent: bool  # it does not say what it is for


@functools.cache
def seen(path: Path) -> Seen:
    """Each module is parsed once, and its tree is let go: kept, the trees of all would be most of what this process
    holds, and the collector walks over that again and again."""
    text = path.read_text()
    tree = ast.parse(text)
    found = Seen(set(), set(), set(), set(), bool(text.strip()) and not ast.get_docstring(tree))
    left: list[tuple[ast.AST, bool]] = [(tree, True)]
    while left:
        node, top = left.pop()
        match node:
            case ast.Import() | ast.ImportFrom(level=0, module=str()):
                here = {node.module} if isinstance(node, ast.ImportFrom) else {alias.name for alias in node.names}
                found.imported.update(here)
                if top:
                    found.at_the_top.update(here)
            case ast.Call(func=ast.Name(id=name)):
                found.called.add(name)
            case ast.Constant(value=value):
                found.constants.add(value)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                top = False
        left += [(each, top) for each in ast.iter_child_nodes(node)]
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(("package", "path"), list(modules()), ids=lambda value: getattr(value, "stem", value))
def test_imports_point_one_way(package: str, path: Path) -> None:
    ours = {name for name in roots(seen(path).imported) if name.startswith("tallymesh")}
    late = ours - roots(seen(path).at_the_top)
    allowed = MAY_IMPORT[package] | {other for this, other in LATE if this == package and other in late}
    assert ours <= allowed, f"{path.relative_to(ROOT)} imports {sorted(ours - allowed)}"


def test_importing_the_client_pulls_in_nothing_heavy() -> None:
    code = "import sys, tallymesh; print(','.join(m.split('.')[0] for m in sys.modules))"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).strip().split(","))
    assert not loaded & {"torch", "libp2p", "web3", "trio", "numpy", "aiohttp", "tallymesh_learning", "tallymesh_node"}


# What starting must not load, with the reason: nothing that it does before the first job needs it. CPU seconds as
# measured in docs/measurements.md.
DAEMON_WITHOUT = {
    "torch": "1.2 s and 220 MB; only sandboxes compute",
    "numpy": "only sandboxes compute",
    "tallymesh_learning.steps": "what runs in sandboxes",
    "web3": "20 MB; eth-abi and httpx are enough",
    "eth_account": "0.5 s; keys sign by coincurve, wallets are sealed and opened by lines of our own (sealing.py)",
    "eth_keyfile": "0.4 s, below eth-account",
    "py_ecc": "0.2 s, below both, and it raises the recursion limit of the whole process",
    "eth": "py-evm is for the embedded chain's own process",
    "eth_tester": "for tests",
    "pyrevm": "for tests",
    "hypothesis": "for tests",
    "rich": "nothing is shown by a daemon",
}
COMMAND_WITHOUT = {
    **DAEMON_WITHOUT,
    "trio": "0.1 s; a command that asks a node or its files needs no event loop",
    "libp2p": "0.6 s; for the daemon",
    "aiohttp": "0.2 s; for the daemon's API",
    "sqlalchemy": "0.15 s; for the daemon's journal and the index",
    "httpx": "0.1 s; loaded by the commands that ask a node",
    "eth_abi": "0.2 s; loaded by the commands that ask the chain",
    "tallymesh_node.daemon": "loaded by `node start`, once its settings are known to be good",
}


@pytest.mark.slow
def test_neither_a_command_nor_a_daemon_loads_what_its_start_does_not_need() -> None:
    code = (
        "import json, sys\n"
        "import tallymesh_node.cli.app; print(json.dumps(list(sys.modules)))\n"
        "import tallymesh_node.wallet, tallymesh_node.daemon; print(json.dumps(list(sys.modules)))\n"
    )
    command, daemon = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert COMMAND_WITHOUT.keys() & set(json.loads(command)) == set()
    assert DAEMON_WITHOUT.keys() & set(json.loads(daemon)) == set()
    assert {"libp2p", "tallymesh_node.daemon"} <= set(json.loads(daemon)), "the list is of what was loaded"


def test_no_module_unpickles_or_evaluates() -> None:
    for _, path in modules():
        assert not roots(seen(path).imported) & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}, path
        assert "eval" not in seen(path).called, path


def test_component_folders_are_no_packages_and_versions_agree() -> None:
    for folder in {path.parent for path in PACKAGES.values()}:
        assert not (folder / "__init__.py").exists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    import tallymesh

    assert project["version"] == tallymesh.__version__


def test_product_code_knows_no_development_chain() -> None:
    """Only what starts a local network names it, and only by its command; what differs between chains is data."""
    chain = PACKAGES["tallymesh_ledger"] / "embedded_chain"
    starts_it = PACKAGES["tallymesh_node"] / "local_network.py"
    naming = 0
    for _, path in modules():
        if chain in path.parents:
            continue
        assert not any(name.startswith("tallymesh_ledger.embedded_chain") for name in seen(path).imported), path
        texts = {each for each in seen(path).constants if isinstance(each, str)}
        named = {text for text in texts if re.search(r"embedded_chain|\b(evm|hardhat|anvil)_|py-evm", text)}
        assert not named or path == starts_it, (path, named)
        assert not seen(path).constants & {31337, 1337}, path
        naming += bool(named)
    assert naming == 1


def test_every_module_says_what_it_is_for() -> None:
    assert not [str(path.relative_to(ROOT)) for _, path in modules() if seen(path).silent]


@pytest.mark.slow
def test_the_wheel_installs_only_names_that_start_with_tallymesh(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-q",
            "-w",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert names
    assert all(name.startswith("tallymesh") for name in names), names
    assert set(PACKAGES) <= names
