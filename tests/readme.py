"""Run a command of README.md, word for word: ``python tests/readme.py (serve|test)``.

``serve`` succeeds if each server in the banner answers, and the site exits with status 0 after SIGTERM. It
needs only the standard library.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
COMMANDS = dict(
    zip(("serve", "test"), re.findall(r"^```sh\n(.*)\n```$", README.read_text(), re.MULTILINE), strict=True)
)
SERVER = re.compile(r"  \S+ +(http://\S+)/ ")


def serve(command: str, path: str, timeout: float, **variables: str) -> int:
    """Run a shell command that ends in ``runbus``; return the number of servers that answer a GET.

    RuntimeError if the site does not exit with status 0. After ``timeout`` seconds all processes are killed.
    """
    # The trap keeps the shell, which gets the signal too, alive to return the status of the site.
    shell = subprocess.Popen(
        ["bash", "-c", f"trap : TERM; {command}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables},
        start_new_session=True,
    )
    timer = threading.Timer(timeout, os.killpg, [shell.pid, signal.SIGKILL])
    timer.start()
    assert shell.stdout is not None
    urls = []
    answers = 0
    try:
        for line in shell.stdout:
            print(line, end="", flush=True)
            if match := SERVER.match(line):
                urls.append(match[1] + path)
            if line.startswith("Quit with"):
                break
        for url in urls:
            with urllib.request.urlopen(url, timeout=30) as response:
                print(f"GET {url}: {response.status}, {len(response.read())} bytes", flush=True)
                answers += 1
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGTERM)
        sys.stdout.writelines(shell.stdout)
        if status := shell.wait():
            raise RuntimeError(f"The site exited with status {status}.")
    finally:
        timer.cancel()
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    return answers


def main(name: str) -> int:
    os.chdir(README.parent)
    command = COMMANDS[name]
    print(command, flush=True)
    if name == "test":
        return subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, check=False).returncode
    free = {"CATALOGUE_BIND_GUNICORN": "127.0.0.1:0", "CATALOGUE_BIND_THREADED": "127.0.0.1:0"}
    return serve(command, "/processes.json", timeout=300, **free) != 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
