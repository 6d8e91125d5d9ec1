import os


def answered_by(request):
    """Add the process and the server that answer the request."""
    return {
        "answered_by": {
            "pid": os.getpid(),
            "server": request.META.get("SERVER_SOFTWARE", "unknown"),
            "port": request.get_port(),
        }
    }
