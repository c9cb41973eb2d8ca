"""Benchmarks: time, memory and quality, compared with other projects."""
