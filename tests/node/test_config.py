"""One record out of defaults, file, environment and flags; whatever is not known is refused where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallymesh import amounts
from tallymesh.errors import CallerError
from tallymesh_node.config import load, unknown_variables
from tallymesh_node.http.access import Published
from tallymesh_node.running import network_in_use


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path))


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("cores = 2\n\nmemory = 3\n", "line 3: there is no key 'memory'"),
        ("[client]\nnode = 'http://x'\ntoken = 'y'\n", "line 3: there is no key 'token'"),
        ("# node\n[worker]\ncores = 2\n", "line 2: there is no key 'worker'"),
        ("'strange' = 1\n", "line 1: there is no key 'strange'"),
        ("cores = 2.5\n", "line 1: cores = 2.5"),
        ("cores = true\n", "line 1: cores = True"),
        ("\nroles = ['boss']\n", "line 2: roles"),
        ("ask_price = 0.02\n", "a float cannot hold wei"),
        ("listen_port = 70000\n", "from 0 to 65535"),
        ("log_level = 'loud'\n", "one of debug"),
        ("packages = 'some'\n", "one of any, base"),
        ("nearby = 'maybe'\n", "one of auto, yes, no"),
        ("home = '~nobody-of-that-name/node'\n", "line 1: home = '~nobody-of-that-name/node': "),
        ('network = "a\\u0000b"\n', "line 1: network"),
        ("client = 3\n", "line 1: [client] is a table"),
        ("cores = \n", "is not TOML"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, where: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(CallerError) as caught:
        load(environment={})
    assert where in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_wrong_variable_and_a_wrong_flag_are_named() -> None:
    with pytest.raises(CallerError, match="TALLYMESH_CORES: cores = 'many'"):
        load(environment={"TALLYMESH_CORES": "many"})
    with pytest.raises(CallerError, match="--ask-price: ask_price = '1e3'"):
        load({"ask_price": "1e3"}, environment={})
    with pytest.raises(CallerError, match="cannot be read"):
        load(file=Path("/nowhere/config.toml"), environment={})


def test_flags_win_over_the_environment_over_the_file_over_defaults(tmp_path: Path) -> None:
    write(tmp_path, "cores = 1\nmemory_mib = 1\ndisk_gib = 1\nnetwork = 'nets/a.json'\n")
    env = {"TALLYMESH_MEMORY_MIB": "2", "TALLYMESH_DISK_GIB": "2", "TALLYMESH_ROLES": "submit, worker"}
    config = load({"disk_gib": 3, "log_level": None}, environment=env)
    assert (config.cores, config.memory_mib, config.disk_gib, config.log_level) == (1, 2, 3, "info")
    assert config.roles == ("worker", "submit")
    assert config.works
    assert config.submits
    assert not config.audits
    assert config.network == tmp_path / "nets" / "a.json"  # relative to the file that says so


def test_peers_nearby_are_looked_for_where_no_other_is_known_unless_the_owner_says(tmp_path: Path) -> None:
    known = ("/ip4/192.0.2.1/tcp/4001/p2p/x",)
    for word, looks in (("auto", (True, False)), ("yes", (True, True)), ("no", (False, False))):
        config = load({"nearby": word}, environment={})
        assert (config.looks_nearby(()), config.looks_nearby(known)) == looks
    assert load({}, environment={}).nearby == "auto"


def test_the_usual_network_file_is_meant_where_it_is_named(tmp_path: Path) -> None:
    """A command about money went to the network of the node that runs here instead."""
    other = tmp_path / "other.json"
    Published(tmp_path, "http://127.0.0.1:9", "token", other).write()
    usual = tmp_path / "network.json"
    assert network_in_use(load({"home": tmp_path}, environment={})) == other
    assert network_in_use(load({"home": tmp_path, "network": usual}, environment={})) == usual
    assert network_in_use(load({"home": tmp_path}, environment={"TALLYMESH_NETWORK": str(usual)})) == usual
    (tmp_path / "config.toml").write_text('network = "network.json"')
    assert network_in_use(load({"home": tmp_path}, environment={})) == usual


def test_each_home_has_its_own_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(tmp_path, "cores = 1\n")
    write(other, "cores = 2\n[client]\nnode = 'http://x:1'\ntoken_file = 't'\n")
    config = load({"home": other}, environment={})
    assert (config.cores, config.home, config.network) == (2, other, other / "network.json")
    assert (config.client.node, config.client.token_file) == ("http://x:1", other / "t")


def test_the_price_is_rounded_up_and_never_a_float() -> None:
    config = load({"ask_price": "0.000000000000000001"}, environment={})
    assert config.ask_price_wei_per_second == 1
    assert load({"ask_price": "3.6"}, environment={}).ask_price_wei_per_second == amounts.parse("0.001")


def test_variables_that_nothing_reads_are_found() -> None:
    assert unknown_variables({"TALLYMESH_CORE": "1", "TALLYMESH_CORES": "1", "PATH": "", "TALLYMESH_NODE": ""}) == [
        "TALLYMESH_CORE"
    ]


def test_limits_on_gas_are_read_to_the_wei(tmp_path: Path) -> None:
    made = load({"home": tmp_path, "gas_price_max": "80.5", "coin_price": "0.04"}, environment={})
    assert made.gas_policy.price_max_wei == 80_500_000_000
    assert made.gas_policy.coin_price_wei == 40_000_000_000_000_000
    none = load({"home": tmp_path}, environment={}).gas_policy
    assert (none.price_max_wei, none.coin_price_wei) == (0, 0)
    with pytest.raises(CallerError, match="gas_price_max"):
        load({"home": tmp_path, "gas_price_max": "cheap"}, environment={})
