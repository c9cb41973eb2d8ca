"""The programs besides train.py and sample.py, run as `python -m scripts.NAME`."""
