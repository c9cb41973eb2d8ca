"""Sweeps: one training run for each point of a grid, each change, or each random sample."""
