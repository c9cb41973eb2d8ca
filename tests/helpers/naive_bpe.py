"""The reference for the tokenizer's tests: byte-pair encoding as tok/bpe.py defines it."""

from tok.bpe import encode as naive_encode
from tok.bpe import encode_pretoken as naive_merge
from tok.bpe import train as naive_train

__all__ = ["naive_encode", "naive_merge", "naive_train"]
