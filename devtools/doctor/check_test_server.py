"""Check which PostgreSQL server the tests will use, by the same functions that the tests call."""

import os
from collections.abc import Iterator

import freshpg
from devtools.doctor.docker_cli import Machine, without_user
from devtools.doctor.finding import Finding, ok, warning, wrong
from freshpg.docker_client import EngineUnavailable, find_engine, needed_images
from freshpg.server_selection import DEFAULT_IMAGE

VARIABLE = "TEST_DATABASE_URL"


def check(machine: Machine) -> Iterator[Finding]:
    given, named_by = os.environ.get(VARIABLE), ""
    if not given:
        try:
            client = find_engine()
        except EngineUnavailable as error:
            # If the docker command's own engine does not answer, that is another finding.
            if without_user(error.address) != (machine.docker.address or ""):
                named_by = error.named_by
        else:
            images = {tag for image in client.images.list() for tag in image.tags}
            client.close()
            if missing := [image for image in needed_images(DEFAULT_IMAGE) if image not in images]:
                # choose() would pull them
                yield ok("server", f"PostgreSQL in Docker; the first run pulls {' and '.join(missing)}.")
                return
    try:
        choice = freshpg.choose(given or "auto", named_by=VARIABLE if given else "--postgres", to_create=True)
    except freshpg.PostgresUnavailable as error:
        cure = f"Correct or unset {VARIABLE}." if given else "Start Docker, or install PostgreSQL's server."
        yield wrong("server", f"{error.reason}.", cure)
        return
    chosen = f"{choice.announcement}."
    yield warning("server", chosen, f"Correct or remove {named_by}.") if named_by else ok("server", chosen)
