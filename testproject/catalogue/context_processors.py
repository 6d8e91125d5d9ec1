import os


def answered_by(request):
    """Say which process and which server answer a request."""
    return {
        "answered_by": {
            "pid": os.getpid(),
            "server": request.META.get("SERVER_SOFTWARE", "unknown"),
            "port": request.get_port(),
        }
    }
