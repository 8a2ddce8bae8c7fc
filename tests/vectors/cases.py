"""Rating cases as they are written, and what became of them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["passed", "failed", "not supported"]
Answer = Mapping[str, Any]
"""What the models say: Decimal for numbers, datetime for instants, and lists and mappings of them."""


class NotSupportedError(Exception):
    """The case asks for something that there is no way to ask the models; the message names it."""


class Given:
    """A case's inputs, each to be taken: what nobody took is a key that nobody knows."""

    def __init__(self, content: Mapping[str, Any], path: str = "inputs") -> None:
        self._content = content
        self._path = path
        self._taken: set[str] = set()
        self._parts: dict[str, list[Given]] = {}

    def __contains__(self, key: str) -> bool:
        return self._content.get(key) is not None

    def take(self, key: str, *default: Any) -> Any:
        """The value as written; the default where it is absent or null. Raises NotSupportedError."""
        self._taken.add(key)
        value = self._content.get(key)
        if value is not None:
            return value
        if default:
            return default[0]
        raise NotSupportedError(f"needs the key {self._path}.{key}")

    def decimal(self, key: str, *default: Decimal | None) -> Any:
        value = self.take(key, *default)
        return value if value is None else decimal(value)

    def instant(self, key: str, *default: datetime | None) -> Any:
        value = self.take(key, *default)
        return instant(value) if isinstance(value, str) else value

    def part(self, key: str) -> "Given":
        """The object of a key; an empty one where it is absent."""
        (part,) = self._named(key, [self.take(key, {})])
        return part

    def parts(self, key: str) -> list["Given"]:
        """The objects of a list."""
        return self._named(key, self.take(key))

    def _named(self, key: str, contents: Sequence[Any]) -> list["Given"]:
        if not all(isinstance(content, Mapping) for content in contents):
            raise NotSupportedError(f"{self._path}.{key} is no object")
        path = f"{self._path}.{key}"
        return self._parts.setdefault(key, [Given(content, path) for content in contents])

    def unknown(self) -> list[str]:
        """The keys that nobody took, with their paths."""
        here = [f"{self._path}.{key}" for key in self._content if key not in self._taken]
        return here + [
            key for parts in self._parts.values() for part in parts for key in part.unknown()
        ]


@dataclass(frozen=True)
class Case:
    """One case: its id, whether its result stands as it is, what goes in and what must come out."""

    id: str
    portability: str
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The operation that the case names, or what its inputs show it to be."""
        inputs = self.inputs
        if "op" in inputs:
            return str(inputs["op"])
        if "aggregation" in inputs:
            return "aggregate"
        if "snapshots" in inputs:
            return "snapshots"
        return "price"


@dataclass(frozen=True)
class Outcome:
    """What became of a case; the reason is empty for one that passed."""

    case: Case
    verdict: Verdict
    reason: str = ""


def read_cases(paths: Iterable[Path]) -> list[Case]:
    """The cases of files, and of the JSON files of folders. Raises ValueError for what is no such file."""
    return [case for path in paths for file in _files(path) for case in _read(file)]


def _files(path: Path) -> Sequence[Path]:
    return sorted(path.glob("*.json")) if path.is_dir() else [path]


def _read(path: Path) -> Iterator[Case]:
    try:
        for case in json.loads(path.read_text()):
            yield Case(
                str(case["id"]),
                case.get("portability", "portable"),
                case["inputs"],
                case["expected"],
            )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no list of rating cases: {error!r}") from error


def decimal(value: object) -> Decimal:
    """A number as written. Raises NotSupportedError."""
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise NotSupportedError(f"{value!r} is no number") from None


def instant(text: str) -> datetime:
    """An instant; a bare date is its midnight in UTC. Raises NotSupportedError."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise NotSupportedError(f"{text!r} is no instant") from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)


SHARES = ("allocated", "applied")
"""Objects in which what is not named is nothing."""


def judge(case: Case, answer: Answer) -> Outcome:
    """Compare what is expected with what the models say: decimals as numbers, instants as instants."""
    unknown = sorted(set(case.expected) - set(answer))
    if unknown:
        return Outcome(
            case, "not supported", f"expected.{', expected.'.join(unknown)} is not known"
        )
    differing = [
        f"{key}: expected {show(expected)}, got {show(answer[key])}"
        for key, expected in case.expected.items()
        if not same(expected, answer[key], rest_is_nothing=key in SHARES)
    ]
    return Outcome(case, "failed" if differing else "passed", "; ".join(differing))


def same(expected: Any, got: Any, rest_is_nothing: bool = False) -> bool:
    """Whether the models say what is expected; of objects, in the keys that are expected."""
    match got:
        case None | bool():
            return expected is got
        case Decimal():
            return isinstance(expected, str | int) and decimal(expected) == got
        case datetime():
            return isinstance(expected, str) and instant(expected) == got
        case Mapping():
            return (
                isinstance(expected, Mapping)
                and all(key in got and same(value, got[key]) for key, value in expected.items())
                and not (rest_is_nothing and any(got[key] for key in got.keys() - expected.keys()))
            )
        case Sequence() if not isinstance(got, str):
            return (
                isinstance(expected, Sequence)
                and len(expected) == len(got)
                and all(map(same, expected, got))
            )
    return bool(expected == got)


def show(value: Any) -> str:
    """A value in one line: decimals in plain digits, instants in UTC."""
    match value:
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Mapping():
            return "{" + ", ".join(f"{key}: {show(each)}" for key, each in value.items()) + "}"
        case Sequence() if not isinstance(value, str):
            return "[" + ", ".join(map(show, value)) + "]"
    return str(value)
