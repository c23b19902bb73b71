"""Everything that one server holds, brought to another, which is new: its roles and its databases, verified."""

import psycopg
from psycopg import sql

from backend.errors import UserError
from backend.scripts.terminal import say

from . import beside
from .archive import reading, shown
from .containers import Side
from .figures import pin
from .filling import fill, refuse_misfit, summary
from .make import direct, save
from .talk import progress

_ROLES = r"""
    SELECT rolname, to_jsonb(r) - 'oid' - 'rolpassword',
           ARRAY(SELECT b.rolname || CASE WHEN m.admin_option THEN ' with admin option' ELSE '' END
                 FROM pg_auth_members AS m JOIN pg_roles AS b ON b.oid = m.roleid WHERE m.member = r.oid ORDER BY 1)
    FROM pg_roles AS r WHERE rolname NOT LIKE 'pg\_%' ORDER BY rolname
"""
_DATABASES = """
    SELECT datname, datallowconn, datistemplate FROM pg_database WHERE datname NOT IN ('template0', 'template1')
    ORDER BY datname <> 'postgres', datname
"""
# The database that every server has, and that is used for nothing by most.
_IS_UNUSED = r"""
    SELECT NOT EXISTS (SELECT FROM pg_class WHERE oid >= 16384)
       AND NOT EXISTS (SELECT FROM pg_proc WHERE oid >= 16384) AND NOT EXISTS (SELECT FROM pg_type WHERE oid >= 16384)
       AND NOT EXISTS (SELECT FROM pg_namespace WHERE oid >= 16384 AND nspname NOT LIKE 'pg\_%')
       AND NOT EXISTS (SELECT FROM pg_largeobject_metadata)
       AND NOT EXISTS (SELECT FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
                       WHERE d.datname = current_database())
"""


def carry(old: Side, new: Side) -> None:
    """Bring all over, and say so, database by database. Raises UserError where it is not the same there."""
    with direct(old.url) as there, direct(new.url, "template1") as here:
        databases = there.execute(_DATABASES).fetchall()
        if closed := [name for name, is_open, _ in databases if not is_open]:
            raise UserError(
                f"These databases take no connections, so none can be read: {', '.join(closed)}. Nothing was changed.\n"
                "On a server of the old version, `ALTER DATABASE ... ALLOW_CONNECTIONS true`, or drop them."
            )
        _carry_roles(old, new, there, here)
        for name, _, is_template in databases:
            _carry_database(name, old, new, here)
            if is_template:
                here.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE true").format(sql.Identifier(name)))


def _carry_roles(old: Side, new: Side, there: psycopg.Connection, here: psycopg.Connection) -> None:
    with progress("Carrying roles over"):
        # As text, when a password ends depends on the session.
        pin(there)
        pin(here)
        script = b"".join(old.tools.dump_roles(old.url))
        new.tools.run_script(script, new.url)
        # Whoever runs the new server has chosen its password.
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
        ours = (sql.Identifier(str(new.url.username)), sql.Literal(new.url.password))
        here.execute(statement.format(*ours))
        wanted = {name: rest for name, *rest in there.execute(_ROLES).fetchall()}
        found = {name: rest for name, *rest in here.execute(_ROLES).fetchall()}
    lost = [name for name, rest in wanted.items() if found.get(name) != rest]
    if lost:
        raise UserError(
            f"These roles could not be made as they were: {', '.join(lost)}. Nothing was changed."
        )


def _carry_database(name: str, old: Side, new: Side, here: psycopg.Connection) -> None:
    with direct(old.url, name) as inside:
        if name == "postgres" and inside.execute(_IS_UNUSED).fetchone() == (True,):
            return
        path, _, _ = save(inside, old.url.set(database=name), old.tools)
    with reading(path) as backup:
        refuse_misfit(here, backup, owner=True)
        made = beside.new_name(name)
        fill(here, backup, new.url, made, new.tools, mark_for=name)
        comment = backup.manifest.properties.comment
        with direct(new.url, "template1") as other:
            if beside.exists(here, name):
                empty = beside.free_name(here, name, "_empty")
                beside.swap(here, other, name=name, new=made, old=empty, comment=comment)
                beside.drop(here, empty)
            else:
                beside.rename(here, made, name, comment)
        say(f"  {name}: {summary(backup.manifest)} (and in {shown(path)}).")
