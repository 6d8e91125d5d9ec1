"""Replacing single workers of a child: which of them, when, and how the others serve on."""
