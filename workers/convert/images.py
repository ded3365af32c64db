"""Image files to what a model takes: checked bytes, arrays, or PIL images.

    open_image   bytes -> PIL image, decoded whole; what is broken, cut off or too large is refused
    check_image  the same checks without keeping the pixels, for models that take the file itself
    to_array     PIL image -> array of (H, W, C), (C, H, W) or (H, W), as the options say

Only PNG, JPEG, GIF (first frame), WebP, BMP and TIFF (first page) are opened, and only by the decoder that
their first bytes call for. Pillow is imported when the first image comes. `image:` of the configuration
is an `ImageOptions`; its pixel limits keep decompression bombs from being decoded at all.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Tuple

from ...protocol.errors import InvalidRequest, TooLarge
from ...protocol.limits import MAX_PIXELS
from .files import sniff

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

#: Pixels of all images of one request, as a multiple of that. Not all of them are held at once.
TOTAL_FACTOR = 8
#: Bytes of the array that a request's images become.
MAX_ARRAY_BYTES = 1 << 30

_FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
}
_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class ImageOptions:
    """The entry's `image:`; None: what the signature asks for."""

    size: Optional[Tuple[int, int]] = None  # width, height
    mode: Optional[str] = None  # L | RGB | RGBA
    dtype: Optional[str] = None
    layout: Optional[str] = None  # HWC | CHW
    max_pixels: int = MAX_PIXELS

    @classmethod
    def from_spec(cls, spec: Optional[Dict[str, Any]]) -> ImageOptions:
        """Of `WorkerSpec.image`; unknown keys are left to newer workers."""
        known = {key: value for key, value in (spec or {}).items() if key in cls.__dataclass_fields__ and value}
        if "size" in known:
            width, height = known["size"]
            known["size"] = (int(width), int(height))
        return cls(**known)

    @property
    def changes_pixels(self) -> bool:
        """Does a model that takes files want them made anew?"""
        return self.size is not None or self.mode is not None


class PixelBudget:
    """Counts the pixels of one request. `take` raises TooLarge."""

    def __init__(self, options: ImageOptions) -> None:
        self.each = options.max_pixels
        self._left = options.max_pixels * TOTAL_FACTOR

    def take(self, width: int, height: int, what: str = "image") -> None:
        pixels = width * height
        if pixels > self.each:
            raise TooLarge(f"the {what} is {width} x {height} pixels: at most {self.each} pixels are decoded")
        self._left -= pixels
        if self._left < 0:
            raise TooLarge(f"the images of the request have more than {self.each * TOTAL_FACTOR} pixels together")


def open_image(raw: bytes, budget: PixelBudget) -> Any:
    """The decoded image, upright (EXIF orientation applied). Raises InvalidRequest and TooLarge."""
    from PIL import ImageOps

    image = _open(raw, budget)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a broken EXIF block is no reason to refuse a photograph
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:
            return image
    return image if upright is None else upright


def check_image(raw: bytes, budget: PixelBudget) -> None:
    """Raises what `open_image` would; a JPEG is decoded at an eighth of its size, which shows the same faults."""
    _open(raw, budget, small=True)


def convert(image: Any, mode: Optional[str], size: Optional[Tuple[int, int]]) -> Any:
    """The image in this mode and size. Transparency is laid on white where the mode has none."""
    if mode is not None and image.mode != mode:
        if mode != "RGBA" and (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info):
            image = _on_white(image)
        image = _eight_bits(image).convert(mode)
    if size is not None and image.size != size:
        from PIL import Image

        # getattr: Pillow moved the names into an enumeration in version 9.1.
        bilinear = getattr(Image, "Resampling", Image).BILINEAR
        image = image.resize(size, bilinear)
    return image


def to_png(image: Any) -> bytes:
    """The image as a PNG file, for models that take files."""
    target = io.BytesIO()
    _writable(image).save(target, "PNG", compress_level=1)
    return target.getvalue()


def to_array(image: Any, dtype: str, layout: str = "HWC", *, flat_grey: bool = False) -> Array:
    """Pixels as an array; floats are scaled to 0…1, whole numbers are 0…255. `flat_grey`: (H, W) for mode L."""
    import numpy as np

    if image.mode not in _CHANNELS:
        image = _eight_bits(image).convert("RGB")
    _check_array(image.width * image.height * _CHANNELS[image.mode] * np.dtype(dtype).itemsize)
    pixels = np.array(image, dtype="uint8")
    if pixels.ndim == 2 and not flat_grey:
        pixels = pixels[:, :, None]
    if layout == "CHW" and pixels.ndim == 3:
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if np.dtype(dtype).kind == "f":
        return (pixels.astype("float32") / np.float32(255)).astype(dtype)
    return pixels.astype(dtype)


def channels_of(mode: str) -> int:
    return _CHANNELS[mode]


def mode_of(channels: int) -> Optional[str]:
    """The mode with so many channels; None where there is none, or it is not said (-1)."""
    return _MODES.get(channels)


def stack(arrays: Iterable[Array]) -> Array:
    """Images of one shape as a batch. Raises InvalidRequest for different ones, TooLarge."""
    import numpy as np

    found: List[Array] = []
    for each in arrays:
        found.append(each)
        _check_array(each.nbytes * len(found))
    if len({each.shape for each in found}) > 1:
        raise InvalidRequest(
            "the images have different sizes: send images of one size, or set image: {size: [width, height]} "
            "in the model's configuration"
        )
    return np.stack(found)


def _check_array(size: int) -> None:
    if size > MAX_ARRAY_BYTES:
        raise TooLarge(
            f"the images make an array of more than {MAX_ARRAY_BYTES >> 20} MiB: send fewer or smaller ones, or set "
            "image: {size: [width, height]} in the model's configuration"
        )


# ---- the decoder ---------------------------------------------------------------------------------


def _open(raw: bytes, budget: PixelBudget, *, small: bool = False) -> Any:
    from PIL import Image, UnidentifiedImageError

    media = sniff(raw)
    if media not in _FORMATS:
        raise InvalidRequest(f"the file is {media or 'of no kind known here'}: send PNG, JPEG, GIF, WebP, BMP or TIFF")
    name = _FORMATS[media]
    if Image.MAX_IMAGE_PIXELS is not None and budget.each > 2 * Image.MAX_IMAGE_PIXELS:
        # Pillow refuses what is over twice its own limit: the configuration's may be larger.
        Image.MAX_IMAGE_PIXELS = budget.each // 2 + 1
    with warnings.catch_warnings():
        # Our own limit is checked before anything is decoded.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(raw), formats=(name,))
            budget.take(*image.size)
            if small and name == "JPEG":
                image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
        except TooLarge:
            raise
        except UnidentifiedImageError:
            raise InvalidRequest(f"the file begins like {name}, but is none") from None
        except Image.DecompressionBombError:
            raise TooLarge(f"the {name} image has too many pixels: at most {budget.each} are decoded") from None
        except MemoryError:
            raise TooLarge(f"the {name} image does not fit into memory") from None
        except Exception as error:  # decoders raise many kinds, and all of them speak of the file
            raise InvalidRequest(f"the {name} image is broken or cut off: {str(error)[:200]}") from None
    return image


def _eight_bits(image: Any) -> Any:
    """16-bit and float images scaled to 8 bits; Pillow's own `convert` would clip them."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        import numpy as np
        from PIL import Image

        pixels = np.asarray(image, dtype="float64")
        top = 65535.0 if image.mode != "F" or float(pixels.max(initial=0.0)) > 1.0 else 1.0
        return Image.fromarray(np.clip(pixels * (255.0 / top), 0, 255).round().astype("uint8"))
    return image


def _on_white(image: Any) -> Any:
    from PIL import Image

    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    return white.convert("RGB")


def _writable(image: Any) -> Any:
    return image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")
