"""The project's migrations, as every way has them run."""

from backend.database import connect, init_db


def bring_to_head(url: str) -> None:
    engine = connect(url)
    try:
        init_db(engine)
    finally:
        engine.dispose()
