"""YAML that somebody else wrote - MLmodel, conda.yaml, python_env.yaml - read so that the worst of it is a LoadError.

Too deep, too long, aliases that would grow without end, no UTF-8, tags that ask for objects: each names the file. The
libraries read such files recursively, and without a limit a hostile one would end the process.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple, Union

from .errors import LoadError

#: Bytes of one file; larger is something else.
MAX_SIZE = 16 << 20
MAX_DEPTH = 100
#: Values in it, those behind an alias counted wherever it stands.
MAX_VALUES = 100_000
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")


def load_yaml(content: Union[bytes, str], where: str, *, numbers: bool = True) -> Any:
    """The value of a YAML file; `where` names it in errors.

    Without `numbers`, numbers and dates stay text as they are written: `python: 3.10` must not become 3.1.
    Raises LoadError.
    """
    import yaml  # a worker has it from mlflow, the gateway from its own requirements

    if len(content) > MAX_SIZE:
        raise LoadError(f"{where} is larger than {MAX_SIZE >> 20} MiB: it is no such file")
    loader = _loader(yaml, numbers)
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        _refuse_bombs(yaml, yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except UnicodeError:
        raise LoadError(f"{where} is no UTF-8 text; log or download the model again") from None
    except Exception as error:  # of the parser, and whatever a constructor says to a value that its tag does not fit
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark is not None else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or f"{type(error).__name__}: {error}"
        raise LoadError(
            f"{where} is not valid YAML{place}: {str(reason)[:200]}; log or download the model again"
        ) from None


def _loader(yaml: Any, numbers: bool) -> Any:
    """The safe loader, in C where that is there."""
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if numbers:
        return base
    known: Dict[Any, List[Tuple[str, Any]]] = base.yaml_implicit_resolvers
    resolvers = {first: [each for each in known[first] if each[0] not in _NUMBERS] for first in known}
    return type("TextLoader", (base,), {"yaml_implicit_resolvers": resolvers})


class _Bomb(Exception):
    """`problem` as in the parser's errors."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def _refuse_bombs(yaml: Any, events: Any) -> None:
    """Look at the file's events, which are made one by one, before its values are, which are not."""
    sizes: Dict[str, int] = {}  # of what has an anchor, once it is whole
    open_: List[Tuple[Any, int]] = []  # anchor, values before it
    total = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in {anchor for anchor, _ in open_}:
                raise _Bomb(f"the alias {event.anchor[:60]} contains itself")
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, total))
            total += 1
            if len(open_) > MAX_DEPTH:
                raise _Bomb(f"more than {MAX_DEPTH} values inside each other")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if total > MAX_VALUES:
            raise _Bomb(f"more than {MAX_VALUES} values, those behind aliases counted")
