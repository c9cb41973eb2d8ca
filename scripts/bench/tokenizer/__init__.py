"""The tokenizer benchmark."""
