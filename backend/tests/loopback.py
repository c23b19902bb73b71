"""Free ports of this machine, and requests without a proxy."""

import random
import socket
import urllib.request
from contextlib import suppress

WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """Return a free port outside of the ranges from which the kernel, Docker and freshpg choose."""
    while True:
        # SystemRandom, because pytest-randomly seeds `random`: two workers would try the same ports.
        port = random.SystemRandom().randint(26000, 32000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
