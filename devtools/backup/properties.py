"""What belongs to a database itself and to nothing in it: a dump that is restored elsewhere leaves it out."""

import csv
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql
from pydantic import BaseModel

# Their value is a list of names, each quoted where it has to be; PostgreSQL's own pg_dump knows them by name as well.
_LISTS = {
    "search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries",
    "shared_preload_libraries", "unix_socket_directories",
}  # fmt: skip

_SETTINGS = """
    SELECT r.rolname, split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
    FROM pg_db_role_setting AS s
    LEFT JOIN pg_roles AS r ON r.oid = s.setrole, unnest(s.setconfig) WITH ORDINALITY AS of (setting, place)
    WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY r.rolname NULLS FIRST, place
"""
_GRANTS = """
    SELECT CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable
    FROM pg_database, aclexplode(datacl) WHERE datname = current_database() ORDER BY 1 NULLS FIRST, 2
"""
# What depends on the bootstrap superuser is not in pg_shdepend.
_ROLES = r"""
    SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\_%' AND oid IN (
        SELECT refobjid FROM pg_shdepend AS s JOIN pg_database AS d ON d.datname = current_database()
        WHERE refclassid = 'pg_authid'::regclass
          AND (s.dbid = d.oid OR (s.classid = 'pg_database'::regclass AND s.objid = d.oid))
        UNION SELECT datdba FROM pg_database WHERE datname = current_database()
        UNION SELECT relowner FROM pg_class WHERE oid >= 16384
        UNION SELECT typowner FROM pg_type WHERE oid >= 16384
        UNION SELECT proowner FROM pg_proc WHERE oid >= 16384
        UNION SELECT nspowner FROM pg_namespace WHERE oid >= 16384
        UNION SELECT lomowner FROM pg_largeobject_metadata)
    ORDER BY 1
"""


class Setting(BaseModel):
    """One of ALTER DATABASE SET, or of ALTER ROLE IN DATABASE SET."""

    role: str | None
    name: str
    value: str


class Grant(BaseModel):
    """A right on the database itself; the role None is PUBLIC."""

    role: str | None
    right: str
    is_grantable: bool


class Properties(BaseModel):
    """All that belongs to the database itself."""

    owner: str
    encoding: str
    collate: str
    ctype: str
    provider: str
    locale: str | None
    icu_rules: str | None
    connection_limit: int
    comment: str | None
    settings: list[Setting]
    grants: list[Grant] | None
    """None where they are PostgreSQL's own."""
    roles: list[str]
    """Those that own something in the database, or may do something there."""
    extensions: list[str]


def read_properties(connection: psycopg.Connection) -> Properties:
    """Read them of the database that the connection is to."""
    query = (
        "SELECT to_jsonb(d), pg_get_userbyid(datdba), pg_encoding_to_char(encoding), "
        "shobj_description(oid, 'pg_database') FROM pg_database AS d WHERE datname = current_database()"
    )
    [(row, owner, encoding, comment)] = connection.execute(query).fetchall()
    extensions = connection.execute("SELECT extname FROM pg_extension ORDER BY 1").fetchall()
    grants = [
        Grant(role=role, right=right, is_grantable=is_grantable)
        for role, right, is_grantable in connection.execute(_GRANTS).fetchall()
    ]
    return Properties(
        owner=owner,
        encoding=encoding,
        collate=row["datcollate"],
        ctype=row["datctype"],
        provider=row["datlocprovider"],
        # The first name is that of 17 and later.
        locale=row.get("datlocale") or row.get("daticulocale"),
        icu_rules=row.get("daticurules"),
        connection_limit=row["datconnlimit"],
        comment=comment,
        settings=[
            Setting(role=role, name=name, value=value)
            for role, name, value in connection.execute(_SETTINGS).fetchall()
        ],
        grants=None if row["datacl"] is None else grants,
        roles=[role for (role,) in connection.execute(_ROLES).fetchall()],
        extensions=[name for (name,) in extensions],
    )


def creation(properties: Properties, name: str, *, locale: bool, owner: bool) -> sql.Composed:
    """Return the statement that creates an empty database like that one, with its locale or with the server's own."""
    words: list[tuple[str, Any]] = [("TEMPLATE", "template0"), ("ENCODING", properties.encoding)]
    if owner:
        words.append(("OWNER", properties.owner))
    if locale:
        provider = {"c": "libc", "i": "icu", "b": "builtin"}[properties.provider]
        words += [
            ("LOCALE_PROVIDER", provider),
            ("LC_COLLATE", properties.collate),
            ("LC_CTYPE", properties.ctype),
        ]
        if properties.locale is not None:
            words.append(("ICU_LOCALE" if provider == "icu" else "BUILTIN_LOCALE", properties.locale))
        if properties.icu_rules is not None:
            words.append(("ICU_RULES", properties.icu_rules))
    names = ("TEMPLATE", "OWNER", "LOCALE_PROVIDER")
    options = [
        sql.SQL("{} = {}").format(
            sql.SQL(word), sql.Identifier(value) if word in names else sql.Literal(value)
        )
        for word, value in words
    ]
    return sql.SQL("CREATE DATABASE {} WITH ").format(sql.Identifier(name)) + sql.SQL(" ").join(options)


def alterations(properties: Properties, name: str, *, owner: bool) -> Iterator[sql.Composed]:
    """Give the statements that make all else of the database as it was, but for its comment."""
    database = sql.Identifier(name)
    yield sql.SQL("ALTER DATABASE {} RESET ALL").format(database)
    if owner and properties.grants is not None:
        for role in (sql.SQL("PUBLIC"), sql.Identifier(properties.owner)):
            yield sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(database, role)
        for grant in properties.grants:
            yield sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
                sql.SQL(grant.right),
                database,
                sql.SQL("PUBLIC") if grant.role is None else sql.Identifier(grant.role),
                sql.SQL(" WITH GRANT OPTION" if grant.is_grantable else ""),
            )
    yield sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(
        database, sql.Literal(properties.connection_limit)
    )
    for setting in properties.settings:
        if setting.role is not None and not owner:
            continue
        whose = sql.SQL("ALTER DATABASE {}").format(database)
        if setting.role is not None:
            whose = sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(setting.role), database)
        yield whose + sql.SQL(" SET {} TO {}").format(sql.Identifier(setting.name), _value(setting))


def comment_on(name: str, comment: str | None) -> sql.Composed:
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(comment))


def _value(setting: Setting) -> sql.Composable:
    if setting.name.lower() not in _LISTS:
        return sql.Literal(setting.value)
    # Double quotes, doubled within, and commas: what a list of quoted names and a row of CSV have in common.
    [names] = csv.reader([setting.value], skipinitialspace=True)
    return sql.SQL(", ").join(map(sql.Literal, names))
