"""What is owed: sampling, verdicts, settlement, balances; the only way to the chain."""
