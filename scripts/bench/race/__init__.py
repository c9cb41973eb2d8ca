"""The race: bits per byte against wall-clock time, ours and nanoGPT's."""
