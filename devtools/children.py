"""Run programs that clean up after themselves when they are asked to end, and ask them once."""

from __future__ import annotations

import signal
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.1


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Have SIGTERM end what is done here as Ctrl-C does."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_to_end(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str],
    meanwhile: Callable[[], object] = lambda: None,
) -> int:
    """Run the command with its output in a file, call `meanwhile` now and then, and return the exit code.

    A KeyboardInterrupt here is passed on as one SIGINT, waited for, and raised again; a second one kills the command.
    """
    with log.open("wb") as output:
        # In a session of its own, or a terminal's Ctrl-C would reach it beside ours: the second ends pytest at once,
        # with its servers still there.
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while True:
                try:
                    return process.wait(_LOOK_SECONDS)
                except subprocess.TimeoutExpired:
                    meanwhile()
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE_SECONDS)
    finally:
        # Itself alone: what keeps its servers is in its group, and stops them when it is gone.
        process.kill()
        process.wait()
