"""Hugging Face's model folders: read and written."""
