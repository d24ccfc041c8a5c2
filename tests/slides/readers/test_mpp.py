"""How large a pixel is: who wins, which unit, what is refused."""

import pytest

from lamella.errors import ResolutionError
from lamella.slides.readers.mpp import resolve_mpp

TIFF_CM = {"tiff.XResolution": "20000", "tiff.YResolution": "40000", "tiff.ResolutionUnit": "centimeter"}


@pytest.mark.parametrize(
    ("properties", "expected", "origin"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26"}, (0.25, 0.26), "openslide.mpp-x"),
        ({"aperio.MPP": "0.4990"}, (0.499, 0.499), "aperio.MPP"),
        ({"aperio.MPP": "0,4990"}, (0.499, 0.499), "aperio.MPP"),
        ({"openslide.mirax.MPP": "0.2325"}, (0.2325, 0.2325), "openslide.mirax.MPP"),
        ({"ome.PhysicalSizeX": "0.5", "ome.PhysicalSizeY": "0.4"}, (0.5, 0.4), "ome.PhysicalSizeX"),
        (
            {"hamamatsu.XResolution": "43963", "hamamatsu.YResolution": "40000"},
            (0.22746, 0.25),
            "hamamatsu.XResolution",
        ),
        (TIFF_CM, (0.5, 0.25), "tiff.XResolution"),
        ({**TIFF_CM, "tiff.ResolutionUnit": "inch"}, (1.27, 0.635), "tiff.XResolution"),
        ({"tiff.XResolution": "50800", "tiff.YResolution": "50800"}, (0.5, 0.5), "tiff.XResolution"),
    ],
)
def test_every_place_a_file_states_it_keeps_x_and_y_apart(properties, expected, origin):
    found = resolve_mpp("a.svs", properties)
    assert (found.mpp_x, found.mpp_y) == pytest.approx(expected, rel=1e-4)
    assert found.origin == origin


def test_the_order_of_trust():
    everything = {
        "openslide.mpp-x": "0.2",
        "openslide.mpp-y": "0.2",
        "aperio.MPP": "0.3",
        "hamamatsu.XResolution": "25000",
        "hamamatsu.YResolution": "25000",
        **TIFF_CM,
    }
    seen = []
    for key in ("openslide.mpp-x", "aperio.MPP", "hamamatsu.XResolution", "tiff.XResolution"):
        seen.append(resolve_mpp("a.svs", everything).mpp_x)
        del everything[key]
    assert seen == pytest.approx([0.2, 0.3, 0.4, 0.5])


def test_a_stated_value_wins_and_a_contradiction_is_noted():
    properties = {"aperio.MPP": "0.25"}
    found = resolve_mpp("a.svs", properties, 0.5)
    assert (found.mpp_x, found.mpp_y, found.origin) == (0.5, 0.5, "stated")
    assert "0.25" in found.note
    assert "aperio.MPP" in found.note
    assert resolve_mpp("a.svs", properties, (0.26, 0.24)).note == ""
    assert resolve_mpp("a.svs", properties, (0.25, 0.5)).note
    assert resolve_mpp("a.svs", {}, 0.5).note == ""
    assert resolve_mpp("a.svs", {}, (0.5, 0.4)).mpp_y == 0.4


def test_a_stated_value_mends_an_absurd_file_and_says_so():
    absurd = {"tiff.XResolution": "28.3", "tiff.YResolution": "28.3", "tiff.ResolutionUnit": "inch"}
    found = resolve_mpp("a.svs", absurd, 0.5)
    assert found.mpp_x == 0.5
    assert "897.5" in found.note


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"aperio.MPP": ""},
        {**TIFF_CM, "tiff.ResolutionUnit": "none"},
        {"openslide.mpp-x": "0.5"},
    ],
)
def test_missing_names_the_slide_and_both_remedies(properties):
    with pytest.raises(ResolutionError) as caught:
        resolve_mpp("folder/a.svs", properties)
    for word in ("folder/a.svs", "manifest column `mpp`", "--mpp"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("properties", "stated", "word"),
    [
        ({"openslide.mpp-x": "896.06", "openslide.mpp-y": "896.06"}, None, "896"),
        ({"aperio.MPP": "0"}, None, "aperio.MPP"),
        ({"aperio.MPP": "nan"}, None, "nan"),
        ({"aperio.MPP": "-0.5"}, None, "-0.5"),
        ({"aperio.MPP": "n/a"}, None, "not a number"),
        ({**TIFF_CM, "tiff.XResolution": "0"}, None, "inf"),
        ({"openslide.mpp-x": "0.5", "openslide.mpp-y": "500"}, None, "500"),
        ({"aperio.MPP": "0.5"}, 500.0, "stated"),
        ({"aperio.MPP": "0.5"}, 0.0, "stated"),
        ({"aperio.MPP": "0.5"}, (0.5, float("nan")), "nan"),
    ],
)
def test_an_absurd_number_is_refused_wherever_it_comes_from(properties, stated, word):
    with pytest.raises(ResolutionError) as caught:
        resolve_mpp("a.svs", properties, stated)
    assert word in str(caught.value)
    assert "--mpp" in str(caught.value)
