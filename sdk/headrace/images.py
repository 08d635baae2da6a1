"""Images as files: arrays become PNG here, by zlib and struct; pictures and figures of other libraries encode themselves.

PNG: https://www.w3.org/TR/png-3/ . A signature, then chunks `length, type, data, crc32(type + data)`: IHDR (size and colour
type), IDAT (the zlib stream of rows, each after its filter's number), IEND.
"""

from __future__ import annotations

import os
import zlib
from struct import pack
from typing import Any, Final, NamedTuple

from headrace_proto.errors import ArtifactNotFound, InvalidValue
from headrace_proto.limits import IMAGE_BYTES_MAX, MIB

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES: Final = {1: 0, 3: 2, 4: 6}
"""Channels of an array to PNG's colour type: grey, RGB, RGBA."""
_LEVEL: Final = 1
"""Of compression: a 1024 x 1024 RGB image took 46 ms at level 1, 7 ms at level 0, and several times that at level 6."""
_PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
"""Of PIL, what a PNG can hold. CMYK, F and others it cannot."""
_NEAR_MODES: Final = {"I": "I;16", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
"""What keeps more of an image than RGB would."""
_SUFFIX_CHARACTERS_MAX: Final = 8
_MAGICS: Final = (
    (b"\x89PNG", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"<svg", "svg"),
    (b"<?xml", "svg"),
)


class EncodedImage(NamedTuple):
    """An image file's bytes and what its name ends with."""

    data: bytes
    suffix: str


def encode_image(image: Any) -> EncodedImage:
    """The file that shows `image`: an array, a PIL image, a matplotlib figure, a path, or the bytes of an image file.

    Arrays are (height, width) or (height, width, channels) with 1, 3 or 4 channels: grey, RGB, RGBA. Integers are 0..255,
    clipped; booleans are black and white; floats are 0..1 when none is larger than 1 (as matplotlib has them), else 0..255, and
    NaN is black. Raises `ArtifactNotFound` for a path without a file, `InvalidValue` for everything else.
    """
    if isinstance(image, str | os.PathLike):
        return _read_file(os.fspath(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return EncodedImage(bytes(image), _suffix_of(bytes(image[:16])))
    if hasattr(image, "savefig"):
        return _figure(image)
    if hasattr(image, "save") and hasattr(image, "mode"):
        return _picture(image)
    if hasattr(image, "__array__"):
        return EncodedImage(_array(image), "png")
    raise InvalidValue(
        f"an image must be an array, a PIL image, a matplotlib figure, a path or the bytes of an image file, not {image!r:.80}"
    )


def too_large(channel: str) -> str:
    """What is said of an image whose file has more than IMAGE_BYTES_MAX bytes."""
    return (
        f"{channel!r}: the image's file is larger than {IMAGE_BYTES_MAX // MIB} MB and was not logged: make it smaller, or log it "
        "as an artifact"
    )


def _read_file(path: str) -> EncodedImage:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe may wait for ever, a device never end
        raise InvalidValue(f"the image {path!r} cannot be read: it is no plain file")
    try:
        with open(path, "rb") as file:
            data = file.read(IMAGE_BYTES_MAX + 1)  # more is not kept anyway: see `too_large`
    except FileNotFoundError:
        raise ArtifactNotFound(f"no image at {path!r}: check the path, relative to {os.getcwd()!r}") from None
    except OSError as error:
        raise InvalidValue(f"the image {path!r} cannot be read: {error.strerror}") from error
    suffix = os.path.splitext(path)[1][1:].lower()
    if not suffix.isascii() or not suffix.isalnum() or len(suffix) > _SUFFIX_CHARACTERS_MAX:
        suffix = _suffix_of(data[:16])
    return EncodedImage(data, suffix)


def _suffix_of(head: bytes) -> str:
    for magic, suffix in _MAGICS:
        if head.startswith(magic):
            return suffix
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    raise InvalidValue(f"bytes that begin with {head!r} are no PNG, JPEG, GIF, BMP, TIFF, WebP or SVG")


def _figure(figure: Any) -> EncodedImage:
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return EncodedImage(buffer.getvalue(), "png")


def _picture(picture: Any) -> EncodedImage:
    from io import BytesIO

    buffer = BytesIO()
    try:
        if picture.mode not in _PNG_MODES:
            picture = picture.convert(_NEAR_MODES.get(picture.mode, "RGB"))
        picture.save(buffer, "PNG")
    except (OSError, ValueError) as error:
        raise InvalidValue(
            f"a PIL image of mode {picture.mode!r} does not become a PNG ({error}): convert('RGB') it"
        ) from error
    return EncodedImage(buffer.getvalue(), "png")


def _array(image: Any) -> bytes:
    import numpy as np

    try:
        array = np.asarray(image)
    except (
        TypeError,
        RuntimeError,
        ValueError,
    ) as error:  # a tensor on a GPU, or one that needs a gradient, says so itself
        raise InvalidValue(f"an image of type {type(image).__name__} does not become an array: {error}") from error
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _COLOUR_TYPES or 0 in array.shape:
        raise InvalidValue(
            f"an image array of shape {np.shape(image)} is neither (height, width) nor (height, width, 1, 3 or 4): "
            "move the channels last, and log the images of a batch one by one"
        )
    return png(_to_bytes(array), array.shape[1], array.shape[0], array.shape[2])


def _to_bytes(array: Any) -> bytes:
    """Rows of pixels, each row after the number of its filter (0: none)."""
    import numpy as np

    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large for float32 is white
            array = np.nan_to_num(array.astype(np.float32), nan=0.0, posinf=np.inf, neginf=0.0)
        array = np.clip(array * 255.0 if array.max() <= 1.0 else array, 0, 255).round()
    elif array.dtype.kind in "iu":
        array = np.clip(array, 0, 255)
    else:
        raise InvalidValue(
            f"an image array holds {array.dtype} values: convert them to uint8, or to floats between 0 and 1"
        )
    height, width, channels = array.shape
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)
    rows[:, 1:] = array.astype(np.uint8).reshape(height, width * channels)
    return rows.tobytes()


def png(rows: bytes, width: int, height: int, channels: int) -> bytes:
    """A PNG file of 8-bit pixels; each of `rows` begins with the number of its filter."""
    header = pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, _LEVEL)) + _chunk(b"IEND", b"")
    return _SIGNATURE + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))
