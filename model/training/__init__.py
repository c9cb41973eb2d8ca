"""Training: optimizers, loss, evaluation, one step and the run that repeats it."""
