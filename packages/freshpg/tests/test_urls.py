import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshpg.server import (
    PostgresUnavailable,
    SecretURL,
    administrative_url,
    database_url,
    local_url,
    sqlalchemy_url,
)

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(password=TEXT, name=TEXT)
def test_swapping_the_database_leaves_any_password_and_takes_any_name(password: str, name: str) -> None:
    url = database_url(local_url(5432, "role", password), name)
    known = psycopg.conninfo.conninfo_to_dict(url)

    assert known == {
        "user": "role",
        "password": password,
        "host": "127.0.0.1",
        "port": "5432",
        "dbname": name,
    }


def test_swapping_the_database_overrules_one_named_by_a_parameter() -> None:
    swapped = database_url("postgresql:///?host=/run/pg&dbname=theirs&connect_timeout=3", "ours")

    assert swapped == "postgresql:///ours?host=/run/pg&connect_timeout=3"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_usual_scheme_is_accepted(scheme: str) -> None:
    assert administrative_url(f"{scheme}://u:p@h:1/d") == "postgresql://u:p@h:1/d"


def test_without_a_database_the_administrative_one_is_meant() -> None:
    assert administrative_url("postgresql://u@h") == "postgresql://u@h/postgres"


def test_sqlalchemy_is_told_the_driver() -> None:
    assert sqlalchemy_url("postgresql://u@h/d") == "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize(
    "url",
    ["postgresql+psycopg://u:hunter2%40@h:1/d", "postgresql://h/d?user=u&password=hunter2&connect_timeout=1"],
)
def test_a_urls_repr_masks_the_password_and_nothing_else(url: str) -> None:
    secret = SecretURL(url)

    assert secret == url
    assert repr(secret) == repr(url.replace("hunter2%40", "***").replace("hunter2", "***"))


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "mysql://u:hunter2@h/d",
        "postgresql:u:hunter2@h/d",
        "postgresql://u:hunter2@rest@h/d",
        "postgresql://u:12/hunter2@h/d",
        "postgresql://u:hunter2/x@h/d",
        "postgresql://u:12#hunter2@h/d",
        "postgresql://u:12?hunter2@h/d",
        "postgresql://u:hunter2%zz@h/d",
        "postgresql://u:p@h:hunter2/d",
        "postgresql://u:p@[hunter2/d",
        "postgresql://u:p@h/d?hunter2=1",
    ],
)
def test_a_malformed_url_is_refused_without_showing_any_of_it(url: str) -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        administrative_url(url)

    assert "hunter2" not in str(refusal.value)
    assert "postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in str(refusal.value)
