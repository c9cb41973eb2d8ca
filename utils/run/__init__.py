"""Run folders: their files, checkpoints, logs and plots."""
