"""Another clock beside this machine's."""

from __future__ import annotations

from devtools.doctor.finding import Finding, ok, warning, wrong

APART_SECONDS, FAR_APART_SECONDS = 2.0, 60.0
# In minutes: below them a number of the smaller unit says it better.
SECONDS_UP_TO, MINUTES_UP_TO = 2, 120
CURE = (
    "Set the clocks by NTP (`sudo timedatectl set-ntp true`); after sleep, restart Docker Desktop, and in WSL run "
    "`sudo hwclock --hctosys`."
)


def told(name: str, whose: str, theirs: float, asked: float, answered: float) -> Finding:
    """Compare a clock that was read between two instants of ours, all in seconds since the epoch."""
    # How long the answer took cannot be told from a difference.
    apart = max(theirs - answered, asked - theirs, 0.0)
    if apart < APART_SECONDS:
        return ok(name, f"{whose} agrees with this machine's.")
    side = "ahead of" if theirs > answered else "behind"
    finding = f"{whose} is {_duration(apart)} {side} this machine's."
    return (wrong if apart >= FAR_APART_SECONDS else warning)(name, finding, CURE)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < SECONDS_UP_TO:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < MINUTES_UP_TO else f"{minutes / 60:.0f} h"
