"""How a case is asked: a generator that writes its catalog and usage, waits for the world, and answers.

It waits by yielding ``RATED`` or ``ISSUED``; meanwhile every other case of the world gets so far too. What
it returns is compared with what the case expects.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

from tests.vectors.cases import Answer, Given
from tests.vectors.world import Customer

Wait = Literal["rated", "issued"]
RATED: Wait = "rated"
ISSUED: Wait = "issued"

Asking = Generator[Wait, None, Answer]
Ask = Callable[[Given, Customer], Asking]


@dataclass(frozen=True)
class Kind:
    """How one kind of case is asked, and in which world: those of a name share one."""

    ask: Ask
    world: Literal["calendar", "prices"]


KINDS: dict[str, Kind] = {}


def asks(*kinds: str, world: Literal["calendar", "prices"] = "prices") -> Callable[[Ask], Ask]:
    """Register a function for kinds of cases."""

    def register(ask: Ask) -> Ask:
        for kind in kinds:
            KINDS[kind] = Kind(ask, world)
        return ask

    return register
