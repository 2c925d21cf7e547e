"""Lists that the orchestrator gives page by page."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from aios_gateway.peers import Call


async def pages(
    call: Callable[[], Call], name: str, request: Any, answer: type[Any], items: str
) -> AsyncIterator[tuple[list[Any], bool]]:
    """Each page of a list, and whether there are more; `call` asks for one."""
    while True:
        page = await call().ask("run", name, request, answer)
        request.page_token = page.next_page_token
        yield list(getattr(page, items)), bool(page.next_page_token)
        if not page.next_page_token:
            return


async def first(
    found: AsyncIterator[tuple[list[Any], bool]], most: int, looks: int
) -> tuple[list[Any], bool]:
    """The first `most` that pages have, as far as so many of them go, and whether these are all."""
    some: list[Any] = []
    async for page, more in found:
        some += page
        looks -= 1
        if not more or not looks or len(some) >= most:
            return some[:most], not more and len(some) <= most
    return some, True
