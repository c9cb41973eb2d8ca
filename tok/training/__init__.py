"""Learning merges: pre-tokens counted, pairs merged in order of frequency."""
