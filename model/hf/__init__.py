"""Read Hugging Face model folders; scripts/export writes them."""
