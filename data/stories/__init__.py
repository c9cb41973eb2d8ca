"""Stories drawn from a probabilistic grammar, whose entropy is known exactly."""
