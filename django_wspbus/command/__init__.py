"""The command that operates a site: ``python -m django_wspbus ACTION``. Nothing here imports Django."""
