"""Stored answers as files: recordings of R, and certified numbers."""
