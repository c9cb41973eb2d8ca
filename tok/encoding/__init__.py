"""Text to ids: short texts one pre-token at a time, long texts in arrays."""
