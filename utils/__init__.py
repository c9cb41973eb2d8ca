"""Helpers that do not depend on the tokenizer, the model or the data. One topic per file."""
