"""Learn merges: count the pre-tokens of a corpus, then merge the most frequent pairs."""
