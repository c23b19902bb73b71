import psycopg
import pytest

from freshpg import PostgresUnavailable, Server, choose, database_url, sqlalchemy_url
from freshpg.server import local_url


def test_any_password_and_any_database_name_survive_in_a_url() -> None:
    url = database_url(local_url(5432, "@:/?#%[] '\"$"), "a/b?c#ä")
    known = psycopg.conninfo.conninfo_to_dict(url)

    assert (known["password"], known["dbname"]) == ("@:/?#%[] '\"$", "a/b?c#ä")


def test_swapping_the_database_overrules_one_named_by_a_parameter() -> None:
    swapped = database_url("postgresql:///?host=/run/pg&dbname=theirs&connect_timeout=3", "ours")

    assert swapped == "postgresql:///ours?host=/run/pg&connect_timeout=3"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_usual_scheme_is_accepted(scheme: str, embedded: Server) -> None:
    given = embedded.url.replace("postgresql", scheme, 1).removesuffix("/postgres")

    assert choose(given).start().url == embedded.url


def test_sqlalchemys_url_names_the_driver_and_its_repr_shows_no_password() -> None:
    url = sqlalchemy_url("postgresql://u:hunter2%40@h/d?password=hunter2")

    assert url == "postgresql+psycopg://u:hunter2%40@h/d?password=hunter2"
    assert repr(url) == "'postgresql+psycopg://u:***@h/d?password=***'"


@pytest.mark.parametrize("request_", ["mysql://u:hunter2@h/d", "host=h password=hunter2"])
def test_another_kind_of_server_is_refused_without_showing_it(request_: str) -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        choose(request_)

    assert str(refusal.value) == (
        "--postgres has to be auto, docker, embedded or a URL that begins with postgresql://."
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@rest@h/d",
        "postgresql://u:12/hunter2@h/d",
        "postgresql://u:12#hunter2@h/d",
        "postgresql://u:hunter2%zz@h/d",
        "postgresql://u:p@h:hunter2/d",
        "postgresql://u:p@h/d?hunter2=1",
    ],
)
def test_a_malformed_url_is_refused_without_showing_any_of_it(url: str) -> None:
    with pytest.raises(PostgresUnavailable) as refusal:
        choose(url)

    assert "hunter2" not in str(refusal.value)
    assert "postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in str(refusal.value)
