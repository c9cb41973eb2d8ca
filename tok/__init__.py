"""Byte-level BPE tokenizer: text to token ids and back. Depends on NumPy only.

Layers, lowest first; a file imports only from lower ones and from its own (docs/tokenizer.md
explains them):

    errors, vocabulary, unicode_classes, text_files
    split_arrays, patterns      split text into pre-tokens
    encoding/                   text to ids
    training/                   learn merges from text
    tokenizer                   BPETokenizer; its file format is in tokenizer_file
    formats/                    read and write vocabularies of other projects
    cli, cli_encode             the command line
    bpe                         the definition in plain Python; python -m tok.bpe starts cli

Suffixes of array names give the shape. A letter has the same meaning in all of tok/:

    A   active pairs: those that one training step examines
    B   bytes, of a block of text or of a key
    C   characters of a block of text
    D   digits, in the split rules
    E   ends of runs of newlines, in the split rules
    G   groups of equal keys; new pairs, one group of occurrences each
    J   occurrences of the new pairs that a merge creates
    K   keys or pairs of ids that are looked up in a hash table
    L   positions in a pre-token, counted in bytes
    M   merges
    N   occurrences of pairs, in training
    P   pre-tokens, those of a block unless stated otherwise
    Q   apostrophes (quotes), in the split rules
    R   cells of the training row
    S   a selection of pre-tokens or pairs, as an index array
    T   tokens of an encoded text
    U   distinct (unique) pre-tokens
    V   ids of the vocabulary
    X   overlaps of two occurrences
"""
