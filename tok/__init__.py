"""Text to ids and back: a byte-level BPE tokenizer. Needs NumPy alone.

`tok.tokenizer` holds BPETokenizer and the command line; the other files are its parts, one noun each.
NumPy is imported where it is used, not at the top, so that `python -m tok.bpe --help` answers at
once.
"""
