"""Sampling: the next token, a KV cache, many texts side by side, streamed."""
