"""The worker: takes leases, runs units, proves what it did, and sees to it that it is paid."""

from tallymesh_node.worker.admission import MAX_OPEN_LEASES, Refusal, Situation, judge
from tallymesh_node.worker.policy import SettlePolicy
from tallymesh_node.worker.service import WorkerService

__all__ = ["MAX_OPEN_LEASES", "Refusal", "SettlePolicy", "Situation", "WorkerService", "judge"]
