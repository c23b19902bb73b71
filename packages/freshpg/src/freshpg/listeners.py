"""Take back what a test had listen to the one engine, which would otherwise hear every later test.

SQLAlchemy has no call that lists an engine's listeners; its registry of them is read here, and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.event import registry

if TYPE_CHECKING:
    from sqlalchemy import Engine


class Listeners:
    """The listeners of an engine, and of its pools, as they are now."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept = set(self._keys())
        self._count = len(registry._key_to_collection)  # noqa: SLF001 (see above)

    def _keys(self) -> list[tuple[int, str, int | tuple[int, int]]]:
        return [key for key in registry._key_to_collection if key[0] == id(self._engine)]  # noqa: SLF001 (see above)

    def restore(self) -> None:
        """Remove those that came since; where nothing at all was registered, that costs nothing."""
        if len(registry._key_to_collection) == self._count:  # noqa: SLF001 (see above)
            return
        for key in self._keys():
            if key in self._kept:
                continue
            registered = registry._key_to_collection.pop(key)  # noqa: SLF001 (see above)
            for of_collection, of_listener in registered.items():
                collection, listener = of_collection(), of_listener()
                if collection is not None and listener is not None:
                    collection.remove(registry._EventKey(self._engine, key[1], listener, None))  # noqa: SLF001 (see above)
        self._count = len(registry._key_to_collection)  # noqa: SLF001 (see above)
