"""A scene under a virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.audit_scene import Auditor, AuditPayer
from fakes.fixtures import in_memory
from fakes.virtual import use_virtual_time
from fakes.worker_scene import Scene

__all__ = ["in_memory"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
async def auditor(scene: Scene) -> Auditor:
    return Auditor(scene)


@pytest.fixture
async def payer(scene: Scene, auditor: Auditor) -> AuditPayer:
    return AuditPayer(scene, auditor)
