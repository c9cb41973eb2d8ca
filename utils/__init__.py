"""Helpers that know no tokenizer, no model and no dataset. One topic per file."""
