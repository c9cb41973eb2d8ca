"""From text to batches: the bundled stories and their grammar, token files, batches."""
