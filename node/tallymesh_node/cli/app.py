"""The commands by name. What they do is in the modules beside this one, which import lazily."""

from __future__ import annotations

import typer

from tallymesh_node.cli import (
    blobs,
    build,
    chain,
    contributor,
    deploying,
    doctor,
    history,
    jobs,
    later,
    money,
    owner,
    receipt,
    rewards,
    run,
    service,
    stake,
    various,
)
from tallymesh_node.cli.output import Group

app = typer.Typer(
    name="tallymesh",
    cls=Group,
    help="Train and map on other people's machines, with the work checked; or lend out your own.",
    epilog="Start with 'tallymesh up' (a network on this machine); then, in another terminal, 'tallymesh run PROGRAM', "
    "where PROGRAM is a script of yours or one of the project's examples/, such as examples/map_area.py.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _group(help_: str, epilog: str) -> typer.Typer:
    return typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help=help_, epilog=epilog)


node = _group(
    "This machine's node.",
    "Start with 'tallymesh doctor', then 'tallymesh node start --stake 1'. No job comes: 'tallymesh why --node'.",
)
wallet = _group("The node's wallet.", "The first start of a node makes one: 'tallymesh wallet show'.")
stakes = _group(
    "The account's stake.", "Start with 'tallymesh balance': it shows how much is free, locked and unbonding."
)
reward = _group("What burned fees give back.", "Start with 'tallymesh rewards show'.")
networks = typer.Typer(cls=Group, rich_markup_mode=None)
blob = _group("What lies in the node's store.", "Start with 'tallymesh blob ls'.")
index = _group(
    "The index of the contracts' events.",
    "'tallymesh history' and its like keep it up by themselves; 'tallymesh index sync --follow' is for many readers.",
)
app.add_typer(node, name="node")
app.add_typer(wallet, name="wallet")
app.add_typer(stakes, name="stake")
app.add_typer(reward, name="rewards")
app.add_typer(networks, name="network")
app.add_typer(blob, name="blob")
app.add_typer(index, name="index")

app.command("up")(contributor.up)
node.command("start")(contributor.start)
node.command("status")(contributor.status)
node.command("stop", short_help="End this machine's node in good order.")(contributor.stop)
node.command("pause")(owner.pause)
node.command("resume")(owner.resume)
node.command("limit")(owner.limit)
node.command("install", short_help="Make this machine's node a service of yours.")(service.install)

app.command("run", context_settings={"ignore_unknown_options": True})(run.run)
app.command("build", context_settings={"ignore_unknown_options": True})(build.build)
app.command("ls")(jobs.ls)
app.command("logs")(jobs.logs)
app.command("why")(jobs.why)
app.command("stop")(jobs.stop)
app.command("result")(jobs.result)
app.command("offers")(jobs.offers)

blob.command("ls")(blobs.ls)
blob.command("pin")(blobs.pin)
blob.command("unpin")(blobs.unpin)
blob.command("rm")(blobs.rm)
blob.command("gc")(blobs.gc)

app.command("balance")(money.balance)
app.command("history", short_help="Every move of an account's money; does it add up?")(history.history)
app.command("earnings", short_help="What an account earned over time, after fees.")(history.earnings)
app.command("receipt", short_help="Who was paid for which unit, and the proof of it.")(receipt.receipt)
app.command("withdraw", short_help="Pay out what the account earned, to its owner.")(stake.withdraw)
networks.callback(invoke_without_command=True, short_help="This network: chain, contracts, terms, stakes, jobs.")(
    chain.network
)
networks.command("deploy", short_help="Put the contracts on a chain: a network of its own.")(deploying.deploy)
networks.command("presets", short_help="Public chains whose facts are known.")(deploying.presets)
stakes.command("add")(stake.add)
stakes.command("release", short_help="Release slots, to be withdrawn after a delay.")(stake.release)
reward.command("show")(rewards.show)
reward.command("collect", short_help="Collect the rewards of all past periods.")(rewards.collect)
index.command("sync")(chain.sync)
index.command("rebuild")(chain.rebuild)
wallet.command("show")(money.show)
wallet.command("create")(money.create)
wallet.command("export")(money.export)
wallet.command("import")(money.import_)

for _name, _help in later.COMMANDS.items():
    app.command(_name, hidden=True, context_settings=later.ANYTHING, help=_help)(later.later)

app.command("doctor", short_help="Try what a node needs, and name what mends it.")(doctor.doctor)
app.command("env")(various.env)
app.command("version")(various.version)
