from pathlib import Path

import pytest

from devtools.environments import EnvironmentUnavailable, environment

from .support import finished


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """Return a file of requirements that takes no index to install."""
    file = tmp_path / "requirements.txt"
    file.write_text("# nothing\n", encoding="utf-8")
    return file


def test_environment_is_made_once_and_anew_when_its_requirements_change(
    tmp_path: Path, nothing: Path
) -> None:
    place = tmp_path / "made"
    python = environment(place, [nothing])
    left = place / "left"
    left.touch()

    assert finished([str(python), "-c", "import sys; print(sys.prefix)"]).stdout.strip() == str(place)
    assert environment(place, [nothing]) == python
    assert left.exists(), "it was there, and nothing had changed"

    nothing.write_text("# nothing, said otherwise\n", encoding="utf-8")
    assert environment(place, [nothing]) == python
    assert not left.exists()


def test_environment_that_was_left_half_made_is_made_anew(tmp_path: Path, nothing: Path) -> None:
    place = tmp_path / "made"
    missing = tmp_path / "missing.txt"
    missing.write_text(f"-r {tmp_path / 'nowhere.txt'}\n", encoding="utf-8")
    with pytest.raises(EnvironmentUnavailable, match=r"nowhere\.txt"):
        environment(place, [missing])
    assert (place / "bin" / "python").exists(), "so far it came"
    left = place / "left"
    left.touch()

    environment(place, [nothing])

    assert not left.exists()
