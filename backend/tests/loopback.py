"""Ports of this machine, and how they are asked past any proxy."""

import random
import socket
import urllib.request
from contextlib import suppress

# Proxies are for what is elsewhere.
WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """Return a free port outside the range from which the kernel and Docker assign ports."""
    while True:
        # Not the module's generator: pytest-randomly seeds it, and two workers would try the same ports.
        port = random.SystemRandom().randint(20000, 32000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
