"""What an account without gas signs and others send: its bonding and its withdrawal, for a fee out of its credit
(RelayedBond and RelayedWithdraw; docs/PROTOCOL.md section 6)."""
