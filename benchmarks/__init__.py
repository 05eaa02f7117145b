"""Measurements: the paper's tables (tables.py), speed (speed.py) and memory (memory.py). Not part of the library."""
