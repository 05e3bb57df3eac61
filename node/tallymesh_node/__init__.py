"""Does: libp2p host, gossip, blobs, sandboxed executor, store, HTTP API, command line."""
