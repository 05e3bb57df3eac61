"""Programs that tests send through the unit runner, and what runs them. Programs import nothing but the base set."""
