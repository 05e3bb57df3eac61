"""Wheels without content that stand for the base set while pip resolves: workers have it, so nothing of it travels, and
nothing that it brings with it either. Their versions carry a local part (PEP 440), which no index has, so that pip can
take no other file for them; ``torch==2.13.0`` is content with ``2.13.0+workers``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

LOCAL: Final = "workers"


def stub(folder: Path, name: str, version: str) -> str:
    """Put the wheel that stands for this version of `name` into `folder`; the version that pip is to see."""
    seen = version if "+" in version else f"{version}+{LOCAL}"
    spelled = name.replace("-", "_")
    info = f"{spelled}-{seen}.dist-info"
    with zipfile.ZipFile(folder / f"{spelled}-{seen}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {seen}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return seen
