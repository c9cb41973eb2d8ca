"""The model: ids -> logits. Knows no tokenizer and no data set.

Letters in names and docstrings (`logits_BTV` has the axes batch, time, vocabulary):

    B  batch, or samples drawn side by side
    T  time: tokens in a row, at most block_size
    D  width of the residual stream, n_embd
    H  attention heads, n_head
    K  size of one head, D / H
    V  vocabulary, vocab_size
"""
