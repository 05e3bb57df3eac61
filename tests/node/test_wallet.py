"""The wallet is unlocked while the daemon is being imported; one that is missing is made by `result` alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tallymesh.errors import CallerError
from tallymesh_ledger import keystore
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import wallet
from tallymesh_node.wallet import KEYSTORE, Opening

KEY = AccountKey(b"\x07" * 32)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Key derivation without its second: what it does is the keystore's own test."""
    (tmp_path / "wallet.password").write_text("right\n")

    def unlock(path: Path, password: str) -> AccountKey:
        if password != "right":
            raise CallerError("wrong_password", "The password does not open the wallet.")
        return KEY

    def create(path: Path, password: str, *, drawn: bool = False) -> AccountKey:
        path.write_text(f"made under {password}, drawn: {drawn}")
        return KEY

    monkeypatch.setattr(keystore, "unlock", unlock)
    monkeypatch.setattr(keystore, "create", create)
    return tmp_path


def test_a_missing_wallet_is_not_made_before_the_folder_is_locked(home: Path) -> None:
    opening = Opening(home, None)
    assert not (home / KEYSTORE).exists()
    assert opening.result() == (KEY, True)
    assert (home / KEYSTORE).exists()


def test_a_wallet_that_is_there_is_unlocked_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / KEYSTORE).write_text("there")
    asked = threading.Event()
    inner = wallet.open_wallet

    def told(folder: Path, password_file: Path | None) -> tuple[AccountKey, bool]:
        asked.set()
        return inner(folder, password_file)

    monkeypatch.setattr(wallet, "open_wallet", told)
    opening = Opening(home, None)
    assert asked.wait(120.0), "nobody asked for the result yet"
    assert opening.result() == (KEY, False)


def test_a_wrong_password_is_told_where_the_key_is_needed(home: Path) -> None:
    (home / KEYSTORE).write_text("there")
    (home / "wallet.password").write_text("wrong\n")
    opening = Opening(home, None)
    with pytest.raises(CallerError) as caught:
        opening.result()
    assert caught.value.code == "wrong_password"


def test_only_a_password_that_was_drawn_is_spared_the_slow_key_derivation(home: Path, tmp_path: Path) -> None:
    Opening(home, None).result()
    assert (home / KEYSTORE).read_text() == "made under right, drawn: False"
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    Opening(fresh, None).result()
    drawn = (fresh / "wallet.password").read_text().strip()
    assert len(drawn) >= 32
    assert (fresh / KEYSTORE).read_text() == f"made under {drawn}, drawn: True"


def test_an_empty_password_file_without_a_wallet_is_one_whose_writer_was_killed(tmp_path: Path) -> None:
    (tmp_path / "wallet.password").touch()
    key, made = wallet.open_wallet(tmp_path, None)
    assert made
    again, _ = wallet.open_wallet(tmp_path, None)
    assert again.address == key.address
    (tmp_path / "wallet.password").write_text("")
    with pytest.raises(CallerError, match="is empty"):
        wallet.open_wallet(tmp_path, None)
