"""Download of well-known corpora, verified by sha256. The only code that uses the network."""
