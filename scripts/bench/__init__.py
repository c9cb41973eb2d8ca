"""Benchmarks: time, memory and quality, next to other projects."""
