import imagecodecs
import numpy as np
import pytest

from lamella.slides.readers.coded_size import check_size

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def streams():
    for kind in ("j2k", "jp2"):
        yield kind, imagecodecs.jpeg2k_encode(PIXELS, codecformat=kind, level=0, reversible=True)
    yield "webp", imagecodecs.webp_encode(PIXELS, level=80)
    yield "webp lossless", imagecodecs.webp_encode(PIXELS, lossless=True)
    alpha = np.dstack([PIXELS, PIXELS[..., 0]])
    yield "webp with alpha", imagecodecs.webp_encode(alpha, level=80)


@pytest.mark.parametrize(("kind", "stream"), list(streams()), ids=lambda value: value if isinstance(value, str) else "")
def test_the_encoders_own_size_is_found(kind, stream):
    check_size(stream, 56, 40)
    for width, height in ((55, 40), (56, 39)):
        with pytest.raises(ValueError, match="56 x 40 pixels instead of"):
            check_size(stream, width, height)


def test_a_stream_of_thousands_of_components_is_refused():
    stream = bytearray(imagecodecs.jpeg2k_encode(PIXELS, codecformat="j2k", level=0, reversible=True))
    at = stream.find(b"\xff\x4f\xff\x51") + 40
    assert stream[at : at + 2] == b"\x00\x03"
    stream[at : at + 2] = b"\x40\x00"
    with pytest.raises(ValueError, match="no JPEG 2000"):
        check_size(bytes(stream), 56, 40)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\0\0\0\0WEBPVP9 " + bytes(20), b"\xff\x4f\xff\x51", b"GIF89a"])
def test_what_is_neither_is_refused(data):
    with pytest.raises(ValueError, match="no JPEG 2000 or WebP"):
        check_size(data, 56, 40)
