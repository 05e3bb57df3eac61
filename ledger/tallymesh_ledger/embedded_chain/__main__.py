"""``python -m tallymesh_ledger.embedded_chain --folder DIR [--port 0] [--state]``: a chain for a local network.

Prints one JSON line when it is ready (`url`, `faucet`, `network`: path of the network file, `chain_id`) and runs until
SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

import msgspec

from tallymesh.parameters import Parameters
from tallymesh_ledger.embedded_chain.development import development_parameters
from tallymesh_ledger.embedded_chain.launcher import NETWORK_FILE, EmbeddedChain


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tallymesh_ledger.embedded_chain",
        description="A development chain in one process, with the contracts deployed and a faucet.",
        epilog="example: python -m tallymesh_ledger.embedded_chain --folder /tmp/chain --port 8545",
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the network file and the chain's store go")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (anybody who reaches it can use the faucet)"
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--name", default="local", help="name of the network")
    parser.add_argument("--state", action="store_true", help="keep the chain in the folder and find it again")
    parser.add_argument("--parameters", type=Path, help="JSON file that replaces development parameters")
    return parser.parse_args()


def _parameters(path: Path | None) -> Parameters:
    if path is None:
        return development_parameters()
    given = json.loads(path.read_bytes())
    return msgspec.convert({**msgspec.to_builtins(development_parameters()), **given}, Parameters)


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    chain = EmbeddedChain(
        arguments.folder, name=arguments.name, parameters=_parameters(arguments.parameters), keep=arguments.state
    )
    try:
        network = await chain.start(arguments.host, arguments.port)
        ready = {
            "url": network.rpc_urls[0],
            "faucet": network.faucet,
            "network": str(arguments.folder / NETWORK_FILE),
            "chain_id": network.chain_id,
        }
        print(json.dumps(ready), flush=True)
        stopped = asyncio.create_task(stop.wait())
        failed = asyncio.create_task(chain.server.wait_failed())
        done, waiting = await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for task in done:
            task.result()
    finally:
        await chain.close()


def main() -> int:
    arguments = _arguments()
    try:
        asyncio.run(_serve(arguments))
    except (OSError, ValueError) as error:
        print(f"The chain could not be started: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
