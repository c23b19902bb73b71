"""The DDL of the trigger that maintains `created_at` and `updated_at`."""

# Raw SQL and ON CONFLICT skip an ORM's `onupdate`, so a trigger maintains the two timestamps.
# `*<>` compares the stored bytes of the rows, so a change from 1.0 to 1.00 counts, and nulls need no special case.
# clock_timestamp() is used because now() does not advance in a transaction. The extra microsecond keeps the order
# strict if the clock was set back or two changes happen at the same tick.
KEEP_TIMESTAMPS_FUNCTION = """\
CREATE OR REPLACE FUNCTION keep_timestamps() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.created_at IS DISTINCT FROM OLD.created_at THEN
        RAISE EXCEPTION 'created_at of table "%" cannot be changed', TG_TABLE_NAME
            USING ERRCODE = 'check_violation',
                  SCHEMA = TG_TABLE_SCHEMA,
                  TABLE = TG_TABLE_NAME,
                  COLUMN = 'created_at',
                  CONSTRAINT = format('ck_%s_created_at_unchanged', TG_TABLE_NAME);
    END IF;
    NEW.updated_at := OLD.updated_at;
    IF NEW *<> OLD THEN
        NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
    END IF;
    RETURN NEW;
END
$$"""
"""The function of every trigger: created_at cannot be changed (SQLSTATE 23514, constraint
`ck_<table>_created_at_unchanged`); updated_at increases if the row changed, and stays the same otherwise."""


def keep_timestamps_trigger(table: str) -> str:
    """Return the DDL of the trigger on `table`, which has both columns; the name is not quoted."""
    return (
        f"CREATE TRIGGER keep_timestamps BEFORE UPDATE ON {table}\n"
        "FOR EACH ROW EXECUTE FUNCTION keep_timestamps()"
    )
