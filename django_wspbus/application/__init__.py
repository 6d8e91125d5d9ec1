"""The WSGI application that the servers serve: loaded, checked, warmed up."""
