"""Failures that people told of, replayed: each file is named after its story's number."""
