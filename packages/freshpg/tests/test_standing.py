"""Fixtures of the session are found at once, and still mean for each test what pytest would have them mean."""

from pathlib import Path

import pytest

from .inner import WORKERS, run_inside


@pytest.mark.parametrize(
    "how", [(), WORKERS, ("-p", "pytest_randomly")], ids=["alone", "workers", "shuffled"]
)
def test_override_with_parameters_serves_each_test_by_its_own(tmp_path: Path, how: tuple[str, ...]) -> None:
    result = run_inside(
        tmp_path,
        """
        from sqlalchemy import create_engine, text

        @pytest.fixture(scope="session", params=["one", "another"])
        def postgres_connect(request):
            def make(url, **options):
                return create_engine(url, connect_args={"application_name": request.param}, **options)
            return make

        @pytest.mark.parametrize("tier", ["session", "committing"])
        @pytest.mark.parametrize("number", range(3))
        def test_it(request, postgres_engine, number, tier):
            with postgres_engine.connect() as connection:
                name = connection.scalar(text("show application_name"))
            assert name == request.node.callspec.params["postgres_connect"]
        """,
        *how,
    )

    assert "12 passed" in result.stdout, result.stdout


def test_overrides_and_values_in_their_place_reach_the_tests_that_they_are_for(tmp_path: Path) -> None:
    result = run_inside(
        tmp_path,
        """
        @pytest.fixture(scope="session")
        def postgres_lock_seconds(request, postgres_lock_seconds):
            return getattr(request, "param", postgres_lock_seconds + 1)

        @pytest.mark.parametrize("number", range(2))
        def test_default(postgres_committing, postgres_lock_seconds, number):
            assert postgres_lock_seconds == 6

        @pytest.mark.parametrize("postgres_lock_seconds", [2], indirect=True)
        def test_with_a_parameter(postgres_committing, postgres_lock_seconds):
            assert postgres_lock_seconds == 2

        def test_default_again(postgres_committing, postgres_lock_seconds):
            assert postgres_lock_seconds == 6

        @pytest.mark.parametrize("postgres_database", ["in its place"])
        def test_shadowed(postgres_engine, postgres_database):
            assert postgres_database == "in its place"

        @pytest.mark.parametrize("number", range(2))
        def test_shadowed_no_more(postgres_engine, postgres_database, number):
            assert postgres_database.startswith("postgresql")

        def in_a_doctest():
            '''
            >>> getfixture("postgres_committing").startswith("postgresql")
            True
            >>> getfixture("postgres_lock_seconds")
            6.0
            '''
        """,
        "--doctest-modules",
    )

    assert "8 passed" in result.stdout, result.stdout
