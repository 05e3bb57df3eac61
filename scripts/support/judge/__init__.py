"""The differential run's parts: two sides that take the same calls, a scene that makes them up, what shrinks and what
bites. The command is scripts/differential."""
