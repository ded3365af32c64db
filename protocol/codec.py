"""Messages to frames and back.

One ZeroMQ message (or one frame of a socket pair) carries any number of our messages:

    frame 0   msgpack [WIRE_VERSION, sent, [m, m, …]]
              sent = seconds of the sender's CLOCK_MONOTONIC, which means nothing to the receiver but its differences
              m = {"t": type, field: value, …}; a field that has its default is left out
              an InferRequest's deadline and received are seconds after `sent` (what has been, negative)
              a body of up to INLINE_BODY bytes stands in "b"; for a larger one "b" is missing
    frame 1…  one frame per larger body, in the order of their messages, exactly the client's bytes

Several messages in one send because a wake-up of the peer costs more than the bytes. Larger bodies
have a frame of their own, so that they are borrowed instead of copied. Times travel relative to `sent`, so that
both sides may be on machines of their own; `clocks.py` makes the receiver's of them.
"""

from __future__ import annotations

import dataclasses
import time
import typing
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import msgpack

from .clocks import PeerClock
from .errors import WireError
from .messages import BY_TYPE, WIRE_VERSION, ChunkReply, ErrorReply, InferReply, InferRequest, Message

Body = Union[bytes, memoryview, bytearray]

#: Bodies up to this many bytes travel inside the header frame.
INLINE_BODY = 8192

_EMPTY = b""
#: What no number of ours reaches; NaN and infinity are not below it either.
_TOO_MUCH = 1 << 63
_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack
#: For text that UTF-8 has no place for, half of a surrogate pair: an error may quote it, and must arrive all the same.
_pack_replacing = msgpack.Packer(use_bin_type=True, autoreset=True, unicode_errors="replace").pack


def _defaults(cls: type) -> List[Tuple[str, Any]]:
    found: List[Tuple[str, Any]] = []
    for spec in dataclasses.fields(cls):
        if spec.default is not dataclasses.MISSING:
            default = spec.default
        elif spec.default_factory is not dataclasses.MISSING:
            default = spec.default_factory()
        else:
            default = dataclasses.MISSING
        found.append((spec.name, default))
    return found


def _kinds(cls: type) -> Dict[str, Tuple[type, ...]]:
    """The types that each field may have on the wire."""
    hints = typing.get_type_hints(cls)
    found: Dict[str, Tuple[type, ...]] = {}
    for spec in dataclasses.fields(cls):
        hint = hints[spec.name]
        optional = getattr(hint, "__origin__", None) is Union
        inner = hint.__args__[0] if optional else hint
        plain = getattr(inner, "__origin__", None) or inner
        kinds = (float, int) if plain is float else (plain,)
        found[spec.name] = (*kinds, type(None)) if optional else kinds
    return found


_KINDS: Dict[type, Dict[str, Tuple[type, ...]]] = {cls: _kinds(cls) for cls in BY_TYPE.values()}

#: What is said of one request, by its `id`.
_ANSWERS = frozenset((InferReply, ChunkReply, ErrorReply))

_FIELDS: Dict[type, List[Tuple[str, Any]]] = {cls: _defaults(cls) for cls in BY_TYPE.values()}


def encode(messages: Iterable[Tuple[Message, Body]]) -> List[Body]:
    """(message, body) pairs, the body b"" where the type carries none, to the frames of one send."""
    sent = time.monotonic()
    heads: List[Dict[str, Any]] = []
    frames: List[Body] = [_EMPTY]
    for message, body in messages:
        head: Dict[str, Any] = {"t": message.type}
        values = message.__dict__
        for name, default in _FIELDS[message.__class__]:
            value = values[name]
            if value != default:
                head[name] = value
        if message.__class__ is InferRequest:
            if "deadline" in head:
                head["deadline"] -= sent
            if "received" in head:
                head["received"] -= sent
        if message.carries_body:
            if len(body) <= INLINE_BODY:
                head["b"] = bytes(body)
            else:
                frames.append(body)
        heads.append(head)
    try:
        frames[0] = _pack([WIRE_VERSION, sent, heads])
    except UnicodeEncodeError:
        frames[0] = _pack_replacing([WIRE_VERSION, sent, heads])
    return frames


def decode(
    frames: Sequence[Body], clock: Optional[PeerClock] = None, *, strict: bool = False
) -> List[Tuple[Any, Body]]:
    """The frames of one receive to (message, body) pairs. Raises WireError.

    `clock`: the sender's, for who receives requests; their times come out by the own one. `strict`: the sender runs
    other people's code: fields must have their types, numbers are not negative, a JSON part no longer than its body.
    An answer that cannot be read is its request's failure; it takes no other message with it.
    """
    try:
        version, *rest = msgpack.unpackb(frames[0], raw=False, strict_map_key=False)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise WireError(f"not a message of ours: {error}") from None
    if version != WIRE_VERSION:
        raise WireError(
            f"the peer speaks wire version {version}, this process {WIRE_VERSION}: "
            "gateway and workers must come from the same installation"
        )
    found: List[Tuple[Any, Body]] = []
    next_frame = 1
    try:
        sent, heads = rest
        here = clock.here(sent) if clock is not None else sent
        for head in heads:
            cls = BY_TYPE[head.pop("t")]
            body: Body = _EMPTY
            if cls.carries_body:  # type: ignore[attr-defined]
                inline = head.pop("b", None)
                if inline is None:
                    body = frames[next_frame]
                    next_frame += 1
                else:
                    body = inline
            try:
                if strict:
                    _check(cls, head, body)
                message = cls(**head)
            except (KeyError, TypeError, ValueError) as error:
                if cls not in _ANSWERS or type(head.get("id")) is not int:
                    raise
                message, body = ErrorReply(head["id"], "internal", f"a malformed answer of the worker: {error}"), _EMPTY
            if cls is InferRequest:
                if message.deadline:
                    message.deadline += here
                if message.received:
                    message.received += here
            found.append((message, body))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WireError(f"a message of ours is malformed: {type(error).__name__}: {error}") from None
    if next_frame != len(frames):
        raise WireError(f"{len(frames) - next_frame} frames too many")
    return found


def _check(cls: type, head: Dict[str, Any], body: Body) -> None:
    """Raises TypeError and ValueError."""
    kinds = _KINDS[cls]
    for name, value in head.items():
        kind = type(value)
        if kind not in kinds[name]:
            raise TypeError(f"{name} of {cls.__name__} is of type {kind.__name__}")
        if (kind is int or kind is float) and not 0 <= value < _TOO_MUCH:
            raise ValueError(f"{name} of {cls.__name__} is out of range")
    if not isinstance(body, (bytes, memoryview)):
        raise TypeError(f"the body of {cls.__name__} is of type {type(body).__name__}")
    if (head.get("json_size") or 0) > len(body) and not head.get("content_encoding"):
        raise ValueError(f"json_size of {cls.__name__} is larger than its body")
