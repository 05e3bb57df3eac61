"""Runs the cells of a notebook in a real IPython shell, one after another, as the kernel of a notebook does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell


def main(path: Path) -> int:
    shell = InteractiveShell.instance()
    shell.colors = "nocolor"
    for cell in json.loads(path.read_bytes())["cells"]:
        if cell["cell_type"] == "code":
            shell.run_cell("".join(cell["source"]), store_history=True)  # like the kernel, it goes on after an error
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
