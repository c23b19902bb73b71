"""The picture in the README is that of the models, and a stale one is told."""

from pathlib import Path

import pytest
from sqlalchemy import Column, Text

from backend.models.models import Base
from devtools import diagram


def test_readme_shows_the_tables_as_the_models_have_them() -> None:
    text = diagram.README.read_text(encoding="utf-8")

    assert diagram.replaced(text, diagram.block(Base.metadata)) == text, (
        "stale: `nox -s diagram` draws it anew"
    )


@pytest.fixture
def readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A README of the test's own, whose picture is stale."""
    readme = tmp_path / "README.md"
    readme.write_text(
        f"before\n\n{diagram.BEGIN}\nsomething else\n{diagram.END}\n\nafter\n", encoding="utf-8"
    )
    monkeypatch.setattr(diagram, "README", readme)
    return readme


def test_stale_picture_is_told_and_left_by_a_check(readme: Path) -> None:
    before = readme.read_text()

    with pytest.raises(SystemExit, match="The README's diagram is stale: `nox -s diagram` draws it anew"):
        diagram.main(["--check"])

    assert readme.read_text() == before


def test_picture_is_drawn_between_its_two_lines_and_nowhere_else(
    readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diagram.main([])
    diagram.main(["--check"])

    head, _, rest = readme.read_text().partition(diagram.BEGIN)
    drawn, _, tail = rest.partition(diagram.END)
    assert (head, tail) == ("before\n\n", "\n\nafter\n")
    assert drawn.startswith("\n```mermaid\nerDiagram\n")
    assert capsys.readouterr().out.splitlines() == [
        "Drew the tables in README.md anew.",
        "The README shows the tables as the models have them.",
    ]


@pytest.mark.parametrize("spoilt", [diagram.BEGIN, diagram.END])
def test_readme_without_the_two_lines_is_left(spoilt: str, readme: Path) -> None:
    readme.write_text(readme.read_text().replace(spoilt, ""))
    before = readme.read_text()

    with pytest.raises(SystemExit, match="once each: nothing was drawn"):
        diagram.main([])

    assert readme.read_text() == before


def test_tables_keys_and_relations_are_drawn_with_their_cardinalities() -> None:
    drawn = list(diagram.mermaid(Base.metadata))

    assert '    companies ||--o{ users : "company_id: restrict"' in drawn
    assert '    users |o--o{ job_queue : "created_by_id: set null"' in drawn
    assert '    users ||--o| user_settings : "user_id: cascade"' in drawn
    assert "        text email UK" in drawn
    assert "        bigint user_id PK, FK" in drawn
    assert '        timestamptz lease_expires_at "or null"' in drawn
    assert [line.split()[0] for line in drawn if line.endswith(" {")] == [
        table.name for table in Base.metadata.sorted_tables
    ]


def test_change_of_a_model_is_a_change_of_the_picture() -> None:
    models = type(Base.metadata)(naming_convention=Base.metadata.naming_convention)
    for table in Base.metadata.sorted_tables:
        table.to_metadata(models)
    assert diagram.block(models) == diagram.block(Base.metadata)

    models.tables["companies"].append_column(Column("nickname", Text))

    assert diagram.block(models) != diagram.block(Base.metadata)
