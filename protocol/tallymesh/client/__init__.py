"""The light client: submits jobs to a node over its HTTP API and follows them. No libp2p, web3 or torch."""
