"""Drop everything in a database, known to the models or not, and find the connections that hold locks on it."""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from backend.migrations import LOCK_NAME


def contents(connection: Connection) -> list[tuple[str, str]]:
    """List what a reset drops, tables first: the name of each object, and the statement that drops it.

    The list has the objects in `public`, in the default schema, and in every other schema that this role may drop, and
    those other schemas; also event triggers, publications, foreign servers and large objects. An extension stays, with
    its objects and its schema. Objects that belong to another one are dropped with it and not listed.
    """
    return [(row.name, row.statement) for row in connection.execute(_CONTENTS)]


def drop(connection: Connection, found: Iterable[tuple[str, str]]) -> None:
    """Drop the objects that `contents` found, in the caller's transaction."""
    # IF EXISTS, because a schema or a function takes other objects with it. Without parameters, psycopg sends many
    # statements at once and takes a % in a name literally. Event triggers go first, because they could forbid drops.
    ordered = sorted(found, key=lambda thing: not thing[1].startswith("DROP EVENT TRIGGER"))
    if statements := ";".join(statement for _, statement in ordered):
        connection.exec_driver_sql(statements, execution_options={"no_parameters": True})


def lock_holders(connection: Connection) -> list[str]:
    """Describe other connections, ten at most, that hold a lock on what a reset drops, or the schema lock."""
    return list(connection.scalars(_LOCK_HOLDERS, {"lock": LOCK_NAME}))


_OURS = r"""
    SELECT oid, quote_ident(nspname) AS name, nspname IN ('public', current_schema()) AS is_home
    FROM pg_namespace AS n
    WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
      AND (nspname IN ('public', current_schema()) OR pg_has_role(nspowner, 'USAGE'))
      AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid
                      AND d.deptype = 'e')
"""

_CONTENTS = text(
    """
WITH ours AS (/* ours */), members AS (
    SELECT d.classid, d.objid, ours.oid AS schema,
           d.classid = 'pg_extension'::regclass
           OR EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
           AS is_extensions
    FROM pg_depend AS d JOIN ours ON d.refobjid = ours.oid
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.deptype = 'n'
), things AS (
    SELECT CASE known.type WHEN 'composite type' THEN 'type' WHEN 'statistics object' THEN 'statistics'
                           ELSE known.type END AS kind,
           known.identity AS name
    FROM (SELECT DISTINCT classid, objid FROM members WHERE NOT is_extensions) AS m,
         LATERAL pg_identify_object(m.classid, m.objid, 0) AS known
    WHERE NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = m.classid AND d.objid = m.objid
                      AND d.deptype IN ('i', 'a') AND known.type <> 'table')
    UNION ALL
    SELECT 'schema', name FROM ours
    WHERE NOT is_home AND NOT EXISTS (SELECT FROM members WHERE schema = ours.oid AND is_extensions)
    UNION ALL
    SELECT 'event trigger', quote_ident(evtname) FROM pg_event_trigger AS t
    WHERE pg_has_role(evtowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_event_trigger'::regclass AND objid = t.oid
                      AND deptype = 'e')
    UNION ALL
    SELECT 'publication', quote_ident(pubname) FROM pg_publication WHERE pg_has_role(pubowner, 'USAGE')
    UNION ALL
    SELECT 'server', quote_ident(srvname) FROM pg_foreign_server AS s
    WHERE pg_has_role(srvowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_foreign_server'::regclass AND objid = s.oid
                      AND deptype = 'e')
    UNION ALL
    SELECT 'large object', oid::text FROM pg_largeobject_metadata WHERE pg_has_role(lomowner, 'USAGE')
)
SELECT kind || ' ' || name AS name,
       CASE kind WHEN 'large object' THEN format('SELECT lo_unlink(%s)', name)
                 ELSE format('DROP %s IF EXISTS %s CASCADE', upper(kind), name) END AS statement
FROM things ORDER BY kind <> 'table', kind, name
""".replace("/* ours */", _OURS)
)

_LOCK_HOLDERS = text(
    r"""
SELECT format('pid %s of %s (%s)%s: %s', a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'no name'),
              coalesce(CASE WHEN a.state LIKE 'idle in transaction%' THEN ', idle in a transaction' ELSE ', busy' END
                       || ' for ' || round(extract(epoch FROM clock_timestamp() - a.state_change), 1) || ' s', ''),
              left(regexp_replace(a.query, '\s+', ' ', 'g'), 80))
FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
  -- An ordinary role sees neither the type nor the state nor the statement of another role's session.
  AND coalesce(a.backend_type, 'client backend') = 'client backend' AND a.usesysid IS NOT NULL
  AND (EXISTS (SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation JOIN (/* ours */) AS ours
              ON ours.oid = c.relnamespace
              WHERE l.pid = a.pid AND l.granted AND l.locktype = 'relation')
   OR EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid AND l.granted AND l.locktype = 'advisory'
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.objsubid = 1
              AND l.objid::bigint = hashtext(:lock)::bigint & 4294967295))
ORDER BY a.state_change LIMIT 10
""".replace("/* ours */", _OURS)
)
