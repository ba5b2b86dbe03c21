//! The one way out: TCP, proxy and TLS with one rustls configuration for every wire.
