"""Sweeps: one training run for each point of a grid."""
