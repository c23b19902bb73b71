import os
import signal
import subprocess
from pathlib import Path

from devtools.children import run_to_end

from .support import ROOT, environment, is_alive, python, wait_until

# Notes each Ctrl-C that reaches it, and takes its time to clean up after the first.
CHILD = """
import os, signal, sys, time
place = sys.argv[1]
def note(*_):
    with open(place, "a") as file: print("interrupted", file=file, flush=True)
    signal.signal(signal.SIGINT, note_again)
    raise KeyboardInterrupt
def note_again(*_):
    with open(place, "a") as file: print("interrupted again", file=file, flush=True)
signal.signal(signal.SIGINT, note)
try:
    with open(place, "a") as file: print(os.getpid(), file=file, flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    with open(place, "a") as file: print("cleaned up", file=file, flush=True)
"""

PARENT = """
import os, sys
from pathlib import Path
from devtools.children import run_to_end, sigterm_as_ctrl_c
place = Path(sys.argv[1])
try:
    with sigterm_as_ctrl_c():
        run_to_end([sys.executable, "-c", sys.argv[2], sys.argv[1]], log=place.with_name("log"), cwd=place.parent,
                   environment=os.environ)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_exit_code_and_output_are_the_commands(tmp_path: Path) -> None:
    ticks: list[None] = []
    log = tmp_path / "log"

    code = run_to_end(
        python("-c", "import time; print('said'); time.sleep(0.5); raise SystemExit(7)"),
        log=log,
        cwd=ROOT,
        environment=environment(),
        meanwhile=lambda: ticks.append(None),
    )

    assert code == 7
    assert log.read_text(encoding="utf-8") == "said\n"
    assert ticks


def end(tmp_path: Path, number: int, *, group: bool) -> list[str]:
    """Interrupt a parent, as a terminal does or as nox does, and return what its child noted."""
    notes = tmp_path / "notes"
    parent = subprocess.Popen(
        python("-c", PARENT, str(notes), CHILD),
        cwd=ROOT,
        env=environment(),
        process_group=0,
    )
    wait_until(lambda: notes.exists() and notes.read_text(encoding="utf-8").endswith("\n"), "the child runs")
    if group:
        os.killpg(parent.pid, number)
    else:
        parent.send_signal(number)

    assert parent.wait(20) == 130
    pid, *said = notes.read_text(encoding="utf-8").splitlines()
    assert not is_alive(int(pid))
    return said


def test_ctrl_c_of_a_terminal_reaches_the_command_once(tmp_path: Path) -> None:
    assert end(tmp_path, signal.SIGINT, group=True) == ["interrupted", "cleaned up"]


def test_sigterm_ends_the_command_as_ctrl_c_does(tmp_path: Path) -> None:
    assert end(tmp_path, signal.SIGTERM, group=False) == ["interrupted", "cleaned up"]
