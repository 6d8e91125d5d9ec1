"""A deploy: one host of the fleet after another."""

from __future__ import annotations

DEPLOY = "deploy"
"""The name of the lease of the deploy that is under way."""
