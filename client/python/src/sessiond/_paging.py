"""A long history in pages, read as it stood at one moment. No sockets; objects belong to one call.

reading = Reading(session, ...)
while reading.unfinished:
    try: reading.take(send(reading.request()))
    except ConflictError as conflict: reading.start_over(conflict)
reading.result()
"""

from __future__ import annotations

from . import _requests
from ._requests import Request
from .errors import ConflictError
from .types import Items

START_OVER_MAX = 100
"""How often removals by others may make a reading start over before it gives up."""


class Reading:
    """All the items of a selection, while others append. Parameters as those of get_items."""

    def __init__(
        self,
        session: str,
        *,
        limit: int | None = None,
        after: int | None = None,
        before: int | None = None,
        if_epoch: int | None = None,
        with_meta: bool = False,
        store: str | None = None,
    ) -> None:
        self._session = session
        self._limit = limit
        self._after = after
        self._before = before
        self._if_epoch = if_epoch
        self._with_meta = with_meta
        self._store = store
        self._starts = 0
        self.pages: list[Items] = []
        self.unfinished = True

    def request(self) -> Request[Items]:
        """What to send next."""
        if not self.pages:
            return _requests.get_items(
                self._session,
                limit=self._limit,
                after=self._after,
                before=self._before,
                if_epoch=self._if_epoch,
                with_meta=self._with_meta,
                store=self._store,
            )
        first, last = self.pages[0], self.pages[-1]
        end = first.head_seq + 1
        return _requests.get_items(
            self._session,
            after=last.last_seq,
            before=end if self._before is None else min(end, self._before),
            if_epoch=first.epoch,
            with_meta=self._with_meta,
            store=self._store,
        )

    def take(self, page: Items) -> None:
        """The answer to `request`."""
        self.pages.append(page)
        self.unfinished = page.more

    def start_over(self, conflict: ConflictError) -> None:
        """`request` was answered by a conflict: something was removed between two pages. Raises it if it is the
        caller's own (if_epoch does not fit the first page), or comes too often."""
        self._starts += 1
        if not self.pages or self._starts > START_OVER_MAX:
            raise conflict
        self.pages.clear()

    def result(self) -> Items:
        """The whole selection, with the numbers of the moment when the reading began."""
        first, last = self.pages[0], self.pages[-1]
        if first is last:
            return first
        items = [text for page in self.pages for text in page.items]
        meta = [text for page in self.pages for text in page.meta or ()] if self._with_meta else None
        return first._replace(items=items, last_seq=last.last_seq, more=False, meta=meta)
