"""Text to ids: the merges applied, one text at a time or a block of pre-tokens at once."""
