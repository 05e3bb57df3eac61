"""Running other people's code so that it can harm nothing here: bubblewrap, a warm template, one sandbox a job."""

from tallymesh_node.sandbox.executor import SandboxExecutor
from tallymesh_node.sandbox.status import SandboxStatus, check_sandbox

__all__ = ["SandboxExecutor", "SandboxStatus", "check_sandbox"]
