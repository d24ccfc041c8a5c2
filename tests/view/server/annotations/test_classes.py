from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

from tests.view.server.annotations.conftest import box, change

from lamella.errors import SlideError
from lamella.view.server.annotations.classes import classes_of, free_colours
from lamella.view.server.layers.contract import Legend


@dataclass
class Shown:
    """A viewer with layers of given classes."""

    annotations: object
    legends: list = field(default_factory=list)

    def layers(self, slide_id: str):
        if slide_id != "a":
            raise SlideError(slide_id, "it cannot be read", "Copy it again.")
        key = Legend(classes=[("more red: component 1", "#ff0000")], drawable=False)
        legends = [key, *(Legend(classes=each) for each in self.legends)]
        return {at: SimpleNamespace(info=SimpleNamespace(legend=each)) for at, each in enumerate(legends)}, []


def test_classes_of_layers_come_first_and_no_two_share_a_colour(store, slide):
    store.save(slide, "anna", change(0, box(1, name="gland"), box(2, name="vessel"), box(3, name="Region")))
    orange, green, *_ = free_colours()
    shown = Shown(store, [[("gland", orange), ("stroma", green)], [("foreground", orange)]])
    found = classes_of(shown, "a")
    assert list(found) == ["gland", "stroma", "foreground", "vessel", "Region"]
    assert (found["gland"], found["stroma"]) == (orange, green)
    assert len(set(found.values())) == len(found)


def test_a_slide_that_cannot_be_read_still_has_classes(store):
    assert list(classes_of(Shown(store), "broken")) == ["Region"]
