"""The checks, a module for each area: pure functions from what was observed to findings."""
