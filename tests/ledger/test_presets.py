"""Presets of public chains: their form. What they say of the chains was not tried from here."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from tallymesh.chain_facts import ChainFacts
from tallymesh.errors import CallerError
from tallymesh.network import Contracts, Network, load, save
from tallymesh_ledger.keys import checksum
from tallymesh_ledger.presets import Preset, preset, presets

ALL = pytest.mark.parametrize("known", presets(), ids=lambda known: known.name)


def test_the_chains_that_were_asked_for_are_there_each_with_a_testnet() -> None:
    chains = {each.chain_id: each.testnet for each in presets()}
    for main, test in ((361, 365), (1, 11155111), (8453, 84532), (42161, 421614), (137, 80002)):
        assert (chains[main], chains[test]) == (False, True)


def test_no_two_have_a_name_or_a_chain_id_in_common() -> None:
    assert len({each.name for each in presets()}) == len({each.chain_id for each in presets()}) == len(presets())


@ALL
def test_a_preset_is_whole(known: Preset) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", known.name)
    assert known.rpc_urls
    assert all(re.fullmatch(r"https://[a-z0-9./-]+", url) for url in (*known.rpc_urls, known.explorer))
    assert 1 <= known.confirmations <= 256
    assert 100 <= known.chain.block_ms <= 60_000
    assert known.confirmations * known.chain.block_ms <= 20 * 60_000  # whoever waits for a final block waits minutes
    assert re.fullmatch(r"[A-Z]{3,5}", known.chain.coin)
    assert known.chain.fees in ("eip1559", "legacy")  # a preset knows; "auto" is for chains that nobody described
    oracle = known.chain.data_fee_oracle
    assert not oracle or checksum(bytes.fromhex(oracle[2:])) == oracle
    assert known.block_hash == "own" or known.notes  # whoever cannot draw from it is told why


@ALL
def test_a_preset_fits_into_a_network_file_and_comes_back(known: Preset, tmp_path: Path) -> None:
    zero = checksum(bytes(20))
    network = Network(
        name=known.name, chain_id=known.chain_id, rpc_urls=known.rpc_urls, contracts=Contracts(zero, zero, zero),
        chain=known.chain,
    )  # fmt: skip
    save(network, tmp_path / "network.json")
    assert load(tmp_path / "network.json") == network


def test_theta_is_paid_in_tfuel_by_one_price_of_no_less_than_its_minimum() -> None:
    for name in ("theta", "theta-testnet"):
        known = preset(name)
        assert (known.chain.coin, known.chain.fees) == ("TFUEL", "legacy")
        assert known.chain.tip_min_wei == 4_000 * 10**9
        assert known.block_hash == "none"


def test_a_name_that_nobody_knows_is_answered_with_those_that_are() -> None:
    with pytest.raises(CallerError) as caught:
        preset("etherum")
    assert caught.value.code == "unknown_preset"
    assert "ethereum" in caught.value.remedy


def test_a_network_file_without_chain_facts_is_still_read(tmp_path: Path) -> None:
    zero = checksum(bytes(20))
    network = Network(name="old", chain_id=5, rpc_urls=("http://127.0.0.1:1",), contracts=Contracts(zero, zero, zero))
    save(network, tmp_path / "network.json")
    assert b"chain_id" in (tmp_path / "network.json").read_bytes()
    assert b'"chain":' not in (tmp_path / "network.json").read_bytes()
    assert load(tmp_path / "network.json").chain == ChainFacts()
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"fees": "free"}', type=ChainFacts)
