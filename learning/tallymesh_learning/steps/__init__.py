"""The steps of the runtime, one module each with `run(work) -> Result`; the runner calls them by the unit's entry."""
