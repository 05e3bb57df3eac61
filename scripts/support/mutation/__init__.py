"""Are the checks worth something? Changes of the contracts and switched-off checks: a test must notice each."""
