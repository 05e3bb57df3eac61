"""Checks of the node's folder: who works in it, its wallet, its network file, what its owner said."""

from __future__ import annotations

from pathlib import Path

import httpx
import msgspec

from tallymesh import network as network_file
from tallymesh.api import NodeView
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError, LocalError
from tallymesh.network import Network
from tallymesh_ledger.keys import AccountKey, checksum
from tallymesh_node.config import Config
from tallymesh_node.doctor.findings import Finding, failed, fix, note, ok
from tallymesh_node.limits import orders
from tallymesh_node.running import network_in_use
from tallymesh_node.wallet import KEYSTORE, open_wallet

ANSWER_S = 10.0  # a node under load answers within a second


def node(home: Path, process: int) -> tuple[list[Finding], NodeView | None]:
    """The node that runs here, and what it says of itself."""
    who = f"process {process}" if process else "another process"
    try:
        published = msgspec.json.decode((home / "api.json").read_bytes(), type=dict[str, str | int])
        answer = httpx.get(
            f"{published['url']}/v1/node",
            headers={"Authorization": f"Bearer {published['token']}"},
            timeout=ANSWER_S,
            trust_env=False,
            verify=str(published["url"]).startswith("https:"),  # the certificate store takes long to load
        )
        view = msgspec.json.decode(answer.raise_for_status().content, type=NodeView)
    except (OSError, KeyError, httpx.HTTPError, httpx.InvalidURL, *UNREADABLE):
        return [
            fix(
                "node",
                "locked",
                f"A node ({who}) works in {home}, and does not answer: a second one cannot start there.",
                f"If it is only starting, wait. Else end it: kill {process or 'its process'}; or give a second node a "
                "folder and a wallet of its own by TALLYMESH_HOME, and --listen-port 0.",
            )
        ], None
    found = [
        note(
            "node",
            f"It runs in {home} ({who}).",
            "A second one needs a folder and a wallet of its own: TALLYMESH_HOME and --listen-port 0.",
        )
    ]
    if view.nearby:
        found.append(note("near", view.nearby))
    for problem in view.problems:
        remedy = problem.remedy or "Nothing: the node sees to it; 'tallymesh why --node' says how far it is."
        found.append(fix("node", problem.code, problem.sentence, remedy))
    return found, view


def as_it_runs(config: Config, view: NodeView) -> Config:
    """With what the node that runs was started with, as far as it says so: its flags are not typed again. A network
    file that is named now is the one that is meant."""
    return msgspec.structs.replace(config, roles=view.roles, network=network_in_use(config))


def wallet(config: Config) -> tuple[Finding, AccountKey | None]:
    """Opens it, as a start would."""
    path = config.home / KEYSTORE
    if not path.exists():
        return note("wallet", f"There is none in {config.home} yet: the first start makes it."), None
    try:
        key, _ = open_wallet(config.home, config.password_file)
    except (CallerError, LocalError) as error:
        remedies = {
            "no_password": "Name a file whose first line is the password, with --password-file.",
        }
        remedy = remedies.get(error.code, "Put it back from a backup: tallymesh wallet import.")
        return failed("wallet", error, remedy), None
    return ok("wallet", checksum(key.address)), key


def network(config: Config) -> tuple[Finding, Network | None]:
    try:
        found = network_file.load(config.network)
    except (CallerError, LocalError) as error:
        return failed("network", error, "Get it again from whoever runs the network, and name it with --network."), None
    except OSError as error:
        sentence = f"{config.network} cannot be read: {error.strerror}."
        return fix("network", "no_network", sentence, "Make it readable, or name another with --network."), None
    return ok("network", f"{found.name}, chain {found.chain_id} ({config.network})"), found


def owner(home: Path) -> list[Finding]:
    """What `node pause` and `node limit` left behind, which an owner may have forgotten."""
    try:
        said = orders.load(home)
    except LocalError as error:
        return [failed("owner", error, "Remove that file.")]
    found = []
    if said.pause is not None:
        found.append(fix("owner", "paused", "Its owner paused it: it offers nothing.", "tallymesh node resume"))
    if said.changes:
        names = ", ".join(sorted(said.changes))
        found.append(note("owner", f"Changed since config.toml: {names}.", "tallymesh node limit --reset"))
    return found
