"""The process behind backend="local": runs a saved job package, and ends when the program that started it is gone.

`python -P -m tallymesh.client.local_child FOLDER`; events come as lines of JSON (`tallymesh_learning.local`).
"""

from __future__ import annotations

import _thread
import sys
import threading


def _watch_parent() -> None:
    """Standard input is a pipe that nobody writes to: its end means that the parent ended, killed or not."""
    sys.stdin.buffer.read()
    _thread.interrupt_main()  # so that the units' processes and files are cleaned up on the way out


def main() -> int:
    from tallymesh_learning import local

    threading.Thread(target=_watch_parent, daemon=True).start()
    try:
        return local.main(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
