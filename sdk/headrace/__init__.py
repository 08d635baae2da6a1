"""Headrace: log experiments from a training loop without ever waiting, and read them as open files."""

__version__ = "0.1.0"
