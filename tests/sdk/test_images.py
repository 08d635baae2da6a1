"""Images: every kind of picture becomes a file that other programs open, with the same pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import headrace as hr
from headrace.errors import ArtifactNotFound, InvalidValue
from headrace.images import encode_image
from headrace_proto.limits import INLINE_BYTES_MAX
from tests.sdk.journals import journal_of


def decoded(image: Any) -> Any:
    """The pixels that Pillow sees in what we made of `image`."""
    picture = Image.open(io.BytesIO(encode_image(image).data))
    picture.load()
    return np.asarray(picture)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4), (1, 1), (300, 2, 3)], ids=str)
def test_arrays_of_every_shape_come_back_pixel_by_pixel(shape: tuple[int, ...]) -> None:
    """Grey, RGB and RGBA, by the last dimension."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decoded(pixels), pixels.squeeze(2) if shape[2:] == (1,) else pixels)


@pytest.mark.parametrize(
    ("pixel", "seen"),
    [
        (np.array([[True, False]]), [255, 0]),
        (np.array([[-5, 300]]), [0, 255]),
        (np.array([[0.0, 1.0]]), [0, 255]),
        (np.array([[0.0, 128.4]]), [0, 128]),
        (np.array([[np.nan, np.inf]]), [0, 255]),
        (np.array([[0.5, -1.0]], dtype=np.float16), [128, 0]),
        (np.array([[1e300, 0.0]]), [255, 0]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_values_become_brightness(pixel: Any, seen: list[int]) -> None:
    """Truth is black and white, integers are clipped, floats are 0..1 unless one is larger; NaN is black."""
    assert decoded(pixel).tolist() == [seen]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 2, 2)),
        np.zeros(3),
        np.zeros((0, 5)),
        np.zeros((2, 2, 3, 1)),
        np.zeros((2, 2), dtype=complex),
        3,
        None,
        [[1]],
    ],
    ids=lambda image: getattr(image, "shape", repr(image)),
)
def test_what_is_no_image_is_refused(experiment: hr.Experiment, image: Any) -> None:
    """With its shape or type in the message, and nothing logged."""
    with pytest.raises(InvalidValue):
        experiment.log_image("samples", image)
    assert journal_of(experiment).points() == []


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "F", "HSV"])
def test_pictures_encode_themselves(mode: str) -> None:
    """In every mode of Pillow's, also those that PNG cannot hold."""
    picture = Image.new("RGB", (3, 2), "red").convert(mode)
    assert decoded(picture).shape[:2] == (2, 3)


MODES = {
    "I": "I;16",
    "I;16": "I;16",
    "LA": "LA",
    "La": "LA",
    "PA": "RGBA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "YCbCr": "RGB",
}


@pytest.mark.parametrize("mode", MODES)
def test_of_rare_modes_what_a_png_can_hold_is_kept(mode: str) -> None:
    """Transparency, and 16 bits of grey."""
    assert Image.open(io.BytesIO(encode_image(Image.new(mode, (3, 2))).data)).mode == MODES[mode]


def test_a_picture_that_cannot_be_written_is_refused_as_such() -> None:
    """With its mode and the remedy, whatever Pillow raises."""
    picture = Image.new("RGB", (3, 0))
    with pytest.raises(InvalidValue, match=r"mode 'RGB' does not become a PNG.*convert\('RGB'\) it"):
        encode_image(picture)


def test_figures_encode_themselves() -> None:
    """As matplotlib draws them."""
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2, 3])
    assert decoded(figure).ndim == 3


def test_files_and_bytes_are_kept_as_they_are(tmp_path: Path) -> None:
    """Under the suffix of the file, or the one that the bytes have."""
    picture = Image.new("RGB", (3, 2), "red")
    for suffix, kept in (
        ("jpg", "jpg"),
        ("PNG", "png"),
        ("gif", "gif"),
        ("webp", "webp"),
        ("bmp", "bmp"),
        ("tiff", "tiff"),
    ):
        path = tmp_path / f"picture.{suffix}"
        picture.save(path)
        assert encode_image(path) == (path.read_bytes(), kept)
        assert encode_image(path.read_bytes()) == (path.read_bytes(), kept)
        strange = tmp_path / "picture.$$$"
        strange.write_bytes(path.read_bytes())
        assert encode_image(str(strange)).suffix == kept


def test_a_missing_file_and_strange_bytes_are_refused(experiment: hr.Experiment, tmp_path: Path) -> None:
    """By the error that fits each."""
    with pytest.raises(ArtifactNotFound, match=r"nowhere\.png"):
        experiment.log_image("samples", tmp_path / "nowhere.png")
    with pytest.raises(InvalidValue, match="no PNG"):
        experiment.log_image("samples", b"hello")
    with pytest.raises(InvalidValue, match="cannot be read"):
        experiment.log_image("samples", tmp_path)


def test_an_image_is_logged_with_its_name_and_step(experiment: hr.Experiment) -> None:
    """Small ones in the event itself."""
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    experiment.log_image("samples", 3, pixels, "first", "a black square", 1_700_000_000)
    experiment.log_image("samples", pixels, image_name="second", step=4)
    first, second = journal_of(experiment).points()
    assert (first.step, first.time_ns) == (3.0, 1_700_000_000 * 10**9)
    assert first.facts == {"name": "first", "description": "a black square", "suffix": "png"}
    assert first.value == second.value == encode_image(pixels).data
    assert (second.step, second.facts["name"], second.facts["description"]) == (4.0, "second", None)


def test_a_large_image_lies_in_the_spool(experiment: hr.Experiment, project: hr.Project) -> None:
    """Its event names the file, its size and its digest."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    experiment.log_image("samples", noise)
    [point] = journal_of(experiment).points()
    data = Path(project.home.spool(experiment._writer.source), point.value["file"]).read_bytes()
    assert len(data) == point.value["size"] > INLINE_BYTES_MAX
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), noise)
