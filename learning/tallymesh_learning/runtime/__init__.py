"""What runs a unit: profile, runner, canary, fork server. Started by `python -m`; importing it imports no torch."""
