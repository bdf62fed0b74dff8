"""Measurements of what the README promises, side by side with the same thing done by hand."""
