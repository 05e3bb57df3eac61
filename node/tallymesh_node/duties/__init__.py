"""Duties: what the chain draws an account for, a sample of a claim to audit or places on a panel of the Court.

Everything follows from journal and chain: a node that was off for a part of a window goes on where the chain is.
"""

from tallymesh_node.duties.duties import SLACK_S, Duties
from tallymesh_node.duties.duty import Duty, Over
from tallymesh_node.duties.record import DRAWN, OVER, DutyRecord

__all__ = ["DRAWN", "OVER", "SLACK_S", "Duties", "Duty", "DutyRecord", "Over"]
