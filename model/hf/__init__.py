"""Hugging Face model folders: reading and writing."""
