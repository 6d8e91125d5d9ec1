"""Noticing that files change."""
