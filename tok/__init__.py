"""Text to ids and back: a byte-level BPE tokenizer. Needs NumPy alone.

Layers, lowest first; a file imports only from lower ones:

    errors, vocabulary, unicode_classes
    split_arrays, patterns      how text is cut into pre-tokens
    encoding/                   text to ids
    training/                   learning merges
    tokenizer                   BPETokenizer; its file format is tokenizer_file
    formats/                    other projects' vocabularies
    cli                         the command line, python -m tok.bpe
"""
