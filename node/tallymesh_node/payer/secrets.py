"""What one job's secrets are derived from: the account key and the order's salt, so that a restart finds them again.

This module keeps nothing.
"""

from __future__ import annotations

import hmac

from tallymesh.messages import Lease, Order
from tallymesh_ledger import sampling
from tallymesh_ledger.eip712 import keccak, word
from tallymesh_ledger.keys import AccountKey


class JobSecrets:
    """The signer's key of one job, and its half of every coin flip."""

    def __init__(self, account: AccountKey, salt: bytes) -> None:
        self.signer = AccountKey(hmac.digest(account.secret, b"tallymesh.signer.1" + salt, "sha256"))
        self._job = hmac.digest(account.secret, b"tallymesh.job.1" + salt, "sha256")
        self._recheck = hmac.digest(account.secret, b"tallymesh.recheck.1" + salt, "sha256")

    def tally(self, job: bytes, worker: bytes, nonce: int, number: int) -> bytes:
        """c_e of one lease. The lease holds the hashes of c_1 and c_2 and its digest is the seat's id, so the id
        cannot go into the secret: job, worker and nonce, which tell leases apart just as well, do."""
        name = keccak(word(job) + word(worker) + word(nonce))
        return sampling.secret(self._job, name, number)

    def of(self, lease: Lease, number: int) -> bytes:
        return self.tally(lease.job, lease.worker, lease.nonce, number)

    def recheck(self, audit_order: bytes) -> bytes:
        """The secret that, shown after the Verdict, selects it for a second look; Open carries its hash."""
        return hmac.digest(self._recheck, audit_order, "sha256")


def secrets_of(account: AccountKey, order: Order) -> JobSecrets:
    return JobSecrets(account, order.salt)
