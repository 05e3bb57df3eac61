"""What a user types, in this process. The commands are made once, not once a call: typer makes all of them anew each
time, a tenth of a second of CPU."""

from __future__ import annotations

import functools
from unittest.mock import patch

import typer
import typer.testing

_command = functools.cache(typer.main.get_command)


class CliRunner(typer.testing.CliRunner):
    def invoke(self, app: typer.Typer, *arguments, **options):
        with patch.object(typer.testing, "_get_command", _command):
            return super().invoke(app, *arguments, **options)
