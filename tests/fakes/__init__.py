"""In-memory stand-ins of the node's interfaces, for tests of the roles."""
