"""The quickstart of the README, word for word."""

import re
import textwrap
from pathlib import Path

import pytest

from freshpg import Server

README = Path(__file__).parents[1] / "README.md"


def test_quickstart_passes_as_it_is_written(pytester: pytest.Pytester, embedded: Server) -> None:
    section = README.read_text(encoding="utf-8").split("## Quickstart\n")[1].split("\n#")[0]
    code = textwrap.dedent(section).split("$ pytest")[0]
    for name, text in re.findall(r"^# (\w+)\.py\n(.*?)(?=^# |\Z)", code, re.MULTILINE | re.DOTALL):
        pytester.makepyfile(**{name: text})

    pytester.runpytest_inprocess("-p", "no:randomly", "--postgres", embedded.url).assert_outcomes(passed=1)
