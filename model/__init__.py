"""The model: token ids in, logits out. It knows no tokenizer and no data set.

Capital letters at the end of a name are the axes of the tensor: `logits_BTV` has the axes batch,
time and vocabulary. Docstrings give shapes with the same letters:

    B  batch: rows, each a sequence of tokens; in sampling, one row for each sample
    T  time: positions in a row, at most block_size in one forward pass
    D  n_embd, the width of the residual stream
    H  n_head, attention heads
    G  kv_heads, heads of keys and values; H / G heads of queries share one
    K  head_dim, the width of one head
    V  vocab_size
    N  outputs of a linear layer
    L  n_layer, blocks
    S  slots of the KV cache
    n  slots of the KV cache that a step reads: the first n of S
    r  heads of queries that share a head of keys and values, H / G
    R  rows of the batch that share a prompt
    X  several axes flattened or joined into one, such as B * H or H + G
    k  top_k, the number of ids that the sampler keeps
    1  an axis of size 1, for broadcasting; other digits are sizes too: 2 in
       kv_2BGK is an axis of keys and values
"""

import torch

from utils import require

# Before 2.6, torch.load could run code from a checkpoint. torch compares its version by number.
require(torch.__version__ >= "2.6", f"torch {torch.__version__} is too old; use 2.6 or newer")
