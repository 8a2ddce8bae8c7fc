"""How a case is asked: a generator that writes its catalog and usage, waits for the world, and answers.

It waits by yielding ``RATED`` or ``ISSUED``; meanwhile every other case of the world gets so far too. What
it returns is compared with what the case expects.
"""

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

from tests.vectors.cases import Answer, Case, Given, NotSupportedError
from tests.vectors.world import Customer

Wait = Literal["rated", "issued"]
RATED: Wait = "rated"
ISSUED: Wait = "issued"

NO_WINDOW = "PT0S"

Asking = Generator[Wait, None, Answer]
Ask = Callable[[Given, Customer], Asking]


@dataclass(frozen=True)
class Kind:
    """How one kind of case is asked, and in which world: those of a name share one."""

    ask: Ask
    world: Literal["calendar", "prices"]

    def world_of(self, case: Case) -> tuple[str, int]:
        """The world's name and its grace in hours: a collection window has a world of its own.

        Raises NotSupportedError.
        """
        window = case.inputs.get("collection_window") or NO_WINDOW
        found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:0M)?(?:0S)?)?", str(window))
        if not found:
            raise NotSupportedError(f"a collection window {window} that is not of whole hours")
        days, hours = (int(part or 0) for part in found.groups())
        return self.world, days * 24 + hours


KINDS: dict[str, Kind] = {}


def asks(*kinds: str, world: Literal["calendar", "prices"] = "prices") -> Callable[[Ask], Ask]:
    """Register a function for kinds of cases."""

    def register(ask: Ask) -> Ask:
        for kind in kinds:
            KINDS[kind] = Kind(ask, world)
        return ask

    return register
