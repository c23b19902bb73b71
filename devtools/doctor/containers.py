"""Run in the project's environment: tell how the tests reach their containers, and whether their reaper answers."""

import json
import os
from collections.abc import Iterator

from devtools.doctor.engine import without_user
from devtools.doctor.finding import Finding, ok, unknown, warning, wrong
from freshpg import PostgresUnavailable
from freshpg.engine import connect_to_engine, within

NAMES = ("tests/connection", "tests/reaper")
MODE, HOST = "TESTCONTAINERS_CONNECTION_MODE", "TESTCONTAINERS_HOST_OVERRIDE"
DISABLED = "TESTCONTAINERS_RYUK_DISABLED"
LOOK_SECONDS, REAPER_SECONDS = 5.0, 15.0
_WAYS = {
    "docker_host": "by the ports that Docker publishes on {host}",
    "gateway_ip": "by published ports on their network's gateway, for this is a container",
    "bridge_ip": "by their own addresses, for this is a container on the engine's host",
}


def main() -> None:
    for finding in examine():
        # The doctor reads them line by line, from the other end of a pipe.
        print(json.dumps(finding.as_data()), flush=True)


def examine() -> Iterator[Finding]:
    try:
        client = connect_to_engine()
    except PostgresUnavailable as error:
        for name in NAMES:
            yield unknown(name, f"{without_user(str(error))}, so the tests take an embedded PostgreSQL.")
        return
    client.close()
    try:
        # Here, for it takes as long as all the rest; and for nothing but to see whether it refuses.
        import testcontainers.core.config  # noqa: F401, PLC0415  slow, and tried for whether it can be
    except ImportError:
        for name in NAMES:
            yield unknown(name, "testcontainers is not installed.", "`nox -s venv`.")
        return
    except ValueError:
        yield wrong(
            NAMES[0],
            "testcontainers cannot read its settings, and so the tests cannot use Docker.",
            f"Correct TC_* and TESTCONTAINERS_* in the environment; {MODE} is one of {', '.join(_WAYS)}.",
        )
        yield unknown(NAMES[1], "testcontainers cannot read its settings.")
        return
    yield connection()
    yield reaper()


def connection() -> Finding:
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415  slow, and only there once examine has seen it

    name = NAMES[0]
    asked_for = next((each for each in (MODE, HOST, "TC_HOST") if os.environ.get(each)), "")
    try:
        client = DockerClient()
        mode, host = within(
            LOOK_SECONDS, lambda: (client.get_connection_mode().value, client.host()), "asking"
        )
        client.client.close()
    except Exception as error:  # noqa: BLE001  docker, requests and urllib3 each raise their own; none may end the page
        return unknown(name, f"testcontainers cannot tell its way: {type(error).__name__}.")
    why = f"as {asked_for} says" if asked_for else f"which {MODE} would change"
    return ok(name, f"The tests reach containers {_WAYS[mode].format(host=host)} ({mode}), {why}.")


def reaper() -> Finding:
    """Start Ryuk as a run of the tests does, wait for its answer, and have it gone again."""
    # They import testcontainers, which takes long and may refuse.
    from docker.errors import DockerException  # type: ignore[import-untyped]  # noqa: PLC0415  it has no types, and is slow
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415  slow, and there once examine has seen it

    from freshpg.reaper import Arming, configured, end_reaper  # noqa: PLC0415  it imports both of them

    name = NAMES[1]
    without = "a run that is killed leaves its container until the next one removes it"
    with configured():
        image = testcontainers_config.ryuk_image
        if testcontainers_config.ryuk_disabled:
            by = DISABLED if DISABLED in os.environ else "~/.testcontainers.properties"
            return warning(
                name, f"Ryuk is disabled by {by}: {without}.", "Unset it, unless Ryuk cannot run here."
            )
        client = connect_to_engine()
        try:
            client.images.get(image)
        except DockerException:
            return unknown(
                name, f"{image} is not here yet.", f"The next run of the tests pulls it; {without}."
            )
        finally:
            client.close()
        notes = Arming(REAPER_SECONDS).notes()
        end_reaper()
    if notes:
        reason = notes[0].partition("(")[2].rpartition(")")[0] or "it does not start"
        return warning(
            name, f"Ryuk does not answer: {without_user(reason)}.", f"Look at {image}; without it {without}."
        )
    return ok(name, f"Ryuk starts and answers ({image}).")


if __name__ == "__main__":
    main()
