"""The process behind backend="local": runs a saved job package, and ends when the program that started it is gone.
Then nobody else removes the job's folder.

`python -P -m tallymesh.client.local_child FOLDER`; events come as lines of JSON (`tallymesh_learning.local`).
"""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from typing import Final

END: Final = b"end"  # whoever started it says so, and will read and remove what is in the folder

_left_alone = threading.Event()


def _watch_parent() -> None:
    """Standard input is a pipe, whose end means to end. Without a word before it the parent ended, killed or not."""
    if sys.stdin.buffer.read() != END:
        _left_alone.set()
    # So that the units' processes and files are cleaned up on the way out. A real signal: `_thread.interrupt_main` is
    # not noticed by a thread that waits for a unit's answer.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def main() -> int:
    from tallymesh_learning import local

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background has it ignored
    threading.Thread(target=_watch_parent, daemon=True).start()
    try:
        return local.main(sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    finally:
        if _left_alone.is_set():
            shutil.rmtree(sys.argv[-1], ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
