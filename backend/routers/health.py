"""Whether the process lives, and whether it can serve."""

from typing import Literal

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from backend.database import SchemaState, schema_state, utc_faults

PATIENCE = 3.0  # seconds
CONNECTIONS = 2  # at most, so that checks of a database that hangs do not pile up

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


@router.get("/ready", summary="Can it serve?")
async def ready(request: Request) -> Ready:
    """Answer 200 where the database answers and its schema is at head or ahead of it, 503 with a problem otherwise.

    `utc` is ok where neither the session nor a column of the schema could make a time wrong.
    """
    checks: CapacityLimiter = request.app.state.health_checks
    try:
        with fail_after(PATIENCE):
            # A server that is frozen says nothing and closes nothing: the thread is left to it, and no more than the
            # limiter's few can be.
            state, faults = await to_thread.run_sync(
                look, request.app.state.engine, limiter=checks, abandon_on_cancel=True
            )
    except (OperationalError, PoolTimeoutError, TimeoutError) as error:
        raise HTTPException(503, "The database does not answer.") from error
    if state.current is None:
        raise HTTPException(503, "The database has no schema yet: run `nox -s db_init`.")
    if not state.is_usable:
        raise HTTPException(
            503, f"The schema is at {state.current} and not at {state.head}: run `nox -s db_init`."
        )
    if faults:
        raise HTTPException(503, " ".join(faults))
    return Ready(schema_revision=state.current)


def look(engine: Engine) -> tuple[SchemaState, list[str]]:
    with engine.connect() as connection:
        return schema_state(connection), utc_faults(connection)
