"""Measurements, by programs of their own (see docs/reproducing.md and docs/performance.md). Not part of the library."""
