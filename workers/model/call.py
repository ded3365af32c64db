"""One request while a worker has it: the call that it was decoded to, and the answer that it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Iterable, Optional, Tuple, Union

from ..convert.compression import MIN_COMPRESSED, choose_encoding, compress

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Body = Union[bytes, bytearray, memoryview]


@dataclass
class Answer:
    """What goes back to the client. `status` 0 means success; a service may set its own."""

    body: Body
    content_type: str
    content_encoding: str = ""
    json_size: Optional[int] = None  # of the body before compression
    status: int = 0
    rows: int = 1

    def compress(self, accept_encoding: str) -> None:
        """Compresses the body where that is worth it and the client takes it."""
        if len(self.body) >= MIN_COMPRESSED:
            encoding = choose_encoding(accept_encoding)
            if encoding:
                self.body = compress(self.body, encoding)
                self.content_encoding = encoding


@dataclass
class Call:
    """One decoded request. Calls of one `group_key` can be predicted together."""

    kind: str
    inputs: Dict[str, Array]  # as the signature wants them; the first axis counts rows
    params: Dict[str, Any]  # the model's own, of its params schema
    request: Any  # what the dialect needs to answer; for V2 the parsed V2Request, without its tensors
    accept_encoding: str = ""
    deadline: float = 0.0  # CLOCK_MONOTONIC seconds, the earlier of the gateway's and the request's; 0: none
    rows: int = 1
    alone: bool = False
    name: str = ""
    version: str = ""
    data: Any = None  # the argument of `predict` itself, where there are no `inputs`; such a call is alone

    def form(self) -> Tuple[Any, ...]:
        """Equal for calls whose inputs can be stacked along axis 0 and predicted with the same params."""
        arrays = [(name, array.dtype, array.shape[1:]) for name, array in self.inputs.items()]
        return tuple(arrays), repr(sorted(self.params.items())) if self.params else ""

    def group_key(self) -> Tuple[Any, ...]:
        """Equal for calls of one form that are answered in one dialect."""
        return (self.kind, *self.form())


def items_of(result: Any) -> Iterable[Any]:
    """A generator's items as they come; anything else is one item."""
    return result if hasattr(result, "__next__") else (result,)


def whole(result: Any) -> Any:
    """A generator's items as a list; anything else as it is."""
    return list(result) if hasattr(result, "__next__") else result
