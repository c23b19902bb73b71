"""What `tests` and `e2e` both stand on."""

import signal


def pytest_configure() -> None:
    # A shell has what it starts in the background ignore Ctrl-C, and all that comes of it; some tests press it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
