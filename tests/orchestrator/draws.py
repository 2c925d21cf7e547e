"""What decides where chance decides: a property test that shrinks, a seed, or what a seed has drawn before."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Draws:
    """All of it comes from one kind of draw, a number from 0 to below another; 0 stands for the simplest."""

    def __init__(self, below: Callable[[int], int]) -> None:
        self._below = below
        self.drawn: list[int] = []

    def below(self, bound: int) -> int:
        self.drawn.append(self._below(bound))
        return self.drawn[-1]

    def number(self, least: int, most: int) -> int:
        return least + self.below(most - least + 1)

    def one_of(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def some_of(self, items: Sequence[T], most: int) -> list[T]:
        """At most so many of them, each once."""
        left, some = list(items), []
        for _ in range(self.number(0, min(most, len(left)))):
            some.append(left.pop(self.below(len(left))))
        return some

    def coin(self) -> bool:
        return self.below(2) == 1

    def once_in(self, times: int) -> bool:
        return self.below(times) == times - 1


def hypothesis(data: st.DataObject) -> Draws:
    return Draws(lambda bound: data.draw(st.integers(0, bound - 1)))


def seeded(seed: int) -> Draws:
    return Draws(random.Random(seed).randrange)


def again(drawn: Sequence[int]) -> Draws:
    """The same draws; what is beyond them, or too large now, is the simplest."""
    left = iter(drawn)

    def below(bound: int) -> int:
        number = next(left, 0)
        return number if number < bound else 0

    return Draws(below)


def shrunk(drawn: Sequence[int], fails: Callable[[Draws], bool], tries: int) -> list[int]:
    """Fewer and smaller draws that fail as well: parts are left out, then numbers made 0, as long as `tries` last."""
    best = list(drawn)

    def better(other: list[int]) -> bool:
        nonlocal best, tries
        tries -= 1
        draws = again(other)
        if tries < 0 or not fails(draws):
            return False
        best = draws.drawn if len(draws.drawn) <= len(other) else other
        return True

    size = max(len(best) // 2, 1)
    while size and tries > 0:
        at, left_out = 0, False
        while at < len(best) and tries > 0:
            if better(best[:at] + best[at + size :]):
                left_out = True
            else:
                at += size
        size = size if left_out and size == 1 else size // 2
    for at in range(len(best)):
        if at < len(best) and best[at]:
            better([*best[:at], 0, *best[at + 1 :]])
    return best
