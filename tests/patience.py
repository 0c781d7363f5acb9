"""How long a test waits for what a quiet machine does at once: one with much else to do takes its time."""

__all__ = ["PATIENCE"]

PATIENCE = 60.0
"""Seconds."""
