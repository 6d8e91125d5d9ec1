"""The command that operates a site: ``python -m django_wspbus ACTION``. It imports neither Django nor the project."""
