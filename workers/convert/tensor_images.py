"""Images for a tensor of a model's signature: its shape says size, channels, layout and whether there is a batch.

    (-1, 224, 224, 3)   batch of (H, W, C)          (-1, 28, 28)   batch of grey (H, W)
    (-1, 3, 224, 224)   batch of (C, H, W)          (-1, 784)      batch of flat images, square unless `size` says else
    (-1, -1, 3)         one image of any size       (28, 28)       one grey image

What the shape leaves open is the entry's `image:`, else the image's own size, RGB, and (H, W, C).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Iterable, Optional, Tuple

from ...protocol.datatypes import DATATYPES
from ...protocol.errors import InvalidRequest
from ...protocol.signature import Field
from .images import ImageOptions, convert, mode_of, stack, to_array

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


class TensorImages:
    """How images become this tensor. Raises InvalidRequest where they cannot."""

    def __init__(self, tensor: Field, options: ImageOptions) -> None:
        self._name = tensor.name
        self._target = DATATYPES[tensor.datatype].numpy
        self._dtype = options.dtype or self._target
        self._size = options.size
        self._mode = options.mode
        self._layout = options.layout or "HWC"
        self._batch = True
        self._flat = False
        self._grey = False
        shape = tensor.shape
        if len(shape) == 4:
            self._read_axes(shape[1:], options)
        elif len(shape) == 3 and shape[0] == -1 and shape[1] > 0 and shape[2] > 4:
            self._read_grey(shape[1:])
        elif len(shape) == 3:
            self._batch = False
            self._read_axes(shape, options)
        elif len(shape) == 2 and shape[0] == -1 and shape[1] > 0:
            self._read_flat(shape[1])
        elif len(shape) == 2:
            self._batch = False
            self._read_grey(shape)
        else:
            raise InvalidRequest(f"the model takes no images: its input {tensor.name!r} has shape {list(shape)}")

    def array(self, opened: Iterable[Any]) -> Array:
        """PIL images as one array of the tensor's datatype; its shape may still not be the signature's."""
        if self._batch:
            return stack(self._one(each) for each in opened)
        first, *more = itertools.islice(opened, 2)
        if more:
            raise InvalidRequest("the model takes one image at a time, and the request has several")
        return self._one(first)

    def _one(self, image: Any) -> Array:
        mode = self._mode or "RGB"
        array = to_array(convert(image, mode, self._size), self._dtype, self._layout, flat_grey=self._grey)
        array = array.astype(self._target, copy=False)
        return array.reshape(-1) if self._flat else array

    def _read_axes(self, axes: Tuple[int, ...], options: ImageOptions) -> None:
        """The three axes of an image, in the layout that the configuration or the channels' place tells."""
        if options.layout is None and axes[-1] not in (1, 3, 4) and axes[0] in (1, 3, 4):
            self._layout = "CHW"
        channels, height, width = axes if self._layout == "CHW" else (axes[2], axes[0], axes[1])
        if channels > 0:
            mode: Optional[str] = mode_of(channels)
            if mode is None:
                raise InvalidRequest(f"the model's input {self._name!r} has {channels} channels, which no image has")
            self._mode = mode
        if self._size is None and width > 0 and height > 0:
            self._size = (width, height)

    def _read_grey(self, axes: Tuple[int, ...]) -> None:
        self._mode = "L"
        self._grey = True
        height, width = axes
        if self._size is None and width > 0 and height > 0:
            self._size = (width, height)

    def _read_flat(self, length: int) -> None:
        """So many numbers per image: grey where that is a square (or `size` says so), else three channels."""
        self._flat = True
        for channels in (1, 3):
            side = math.isqrt(length // channels)
            size = self._size or (side, side)
            if size[0] * size[1] * channels == length and self._mode in (None, mode_of(channels)):
                self._size, self._mode = size, mode_of(channels)
                return
        raise InvalidRequest(
            f"the model's input {self._name!r} takes {length} numbers per image: set image: {{size, mode}} in its "
            "configuration so that they have as many pixels"
        )
