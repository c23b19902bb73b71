"""Health checks: whether the process is alive, and whether it can serve requests."""

from typing import Literal

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from backend.database import SchemaState, schema_state, utc_faults

PATIENCE = 3.0  # seconds
CONNECTIONS = 2  # the maximum, so that checks do not pile up if the database hangs

router = APIRouter(prefix="/health", tags=["health"])


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ok"] = "ok"
    database: Literal["ok"] = "ok"
    utc: Literal["ok"] = "ok"
    schema_revision: str


@router.get("/live", summary="Is the process alive?")
async def live() -> Alive:
    return Alive()


@router.get("/ready", summary="Can it serve requests?")
async def ready(request: Request) -> Ready:
    """200 if the database answers, and its schema is as new as the code or newer; otherwise 503.

    `utc` is ok if neither the session's settings nor a column's type can make a time wrong.
    """
    checks: CapacityLimiter = request.app.state.health_checks
    try:
        with fail_after(PATIENCE):
            # A frozen server neither answers nor closes the connection, so the check abandons its thread. The limiter
            # bounds the number of abandoned threads.
            state, faults = await to_thread.run_sync(
                inspect_database, request.app.state.engine, limiter=checks, abandon_on_cancel=True
            )
    except (OperationalError, PoolTimeoutError, TimeoutError) as error:
        raise HTTPException(503, "The database does not answer.") from error
    if state.current is None:
        raise HTTPException(503, "The database has no schema; run `nox -s db_init`.")
    if not state.is_usable:
        raise HTTPException(
            503, f"The schema is at revision {state.current}, not {state.head}; run `nox -s db_init`."
        )
    if faults:
        raise HTTPException(503, " ".join(faults))
    return Ready(schema_revision=state.current)


def inspect_database(engine: Engine) -> tuple[SchemaState, list[str]]:
    with engine.connect() as connection:
        return schema_state(connection), utc_faults(connection)
