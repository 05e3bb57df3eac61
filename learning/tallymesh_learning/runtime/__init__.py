"""What runs a unit: numeric profile, runner, canary, fork server. Started by `python -m`; importing it imports no torch."""
