import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamella.view.marks import INK, PALETTE, colour_name, draw_scale_bar, length_text, round_length_um, web


@given(st.floats(0.01, 1e6))
def test_round_length_is_the_longest_round_one_that_fits(longest_um: float) -> None:
    length_um = round_length_um(longest_um)
    assert length_um <= longest_um * (1 + 1e-6)
    assert length_um > longest_um / 2.5 * (1 - 1e-6)
    assert f"{length_um:.0e}"[0] in "125"


@pytest.mark.parametrize(("um", "text"), [(20, "20 µm"), (0.5, "0.5 µm"), (1000, "1 mm"), (1540, "1.54 mm")])
def test_lengths_are_written_in_the_unit_that_reads_best(um: float, text: str) -> None:
    assert length_text(um) == text


def test_scale_bar_is_as_long_as_it_says() -> None:
    image = Image.new("RGB", (400, 300), (150, 60, 120))
    draw_scale_bar(image, 0.5, 12)  # a quarter of 400 px at 0.5 um: 50 um, 100 px
    rows = [sum(image.getpixel((x, y)) == INK for x in range(400)) for y in range(300)]
    assert max(rows) == 101  # both ends drawn


def test_colours_are_told_apart() -> None:
    assert len({web(rgb) for rgb in PALETTE}) == len(PALETTE)
    assert web((230, 159, 0)) == "#e69f00"
    assert len({colour_name(number) for number in range(len(PALETTE))}) == len(PALETTE)
    assert (colour_name(0), colour_name(len(PALETTE))) == ("orange", "orange")
