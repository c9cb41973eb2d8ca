"""Sampling: choosing the next token, a KV cache, batches of samples, streaming their text."""
