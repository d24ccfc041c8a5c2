from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient
from tests.view.server.annotations.conftest import box, uid

from lamella.formats.geojson import read_geojson
from lamella.view.server.annotations.store import AnnotationStore
from lamella.view.server.app import make_app
from lamella.view.server.catalogue.items import Catalogue, QueueItem, SlideItem
from lamella.view.server.safety import Safety
from lamella.view.server.served import Served
from lamella.view.server.slide_pool import SlidePool
from lamella.view.server.tile_memory import TileMemory

OWN = {"content-type": "application/json", "x-lamella": "1"}
ANNOTATIONS = "/api/slides/id-a/annotations"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "annotations"


@pytest.fixture
def client(make_slide, folder):
    items = {"id-a": SlideItem("id-a", "a", make_slide("a.tif", 256, 384, levels=1))}
    queue = (QueueItem("a", (10.4, 20, 30, 40), "likeliest gland"), QueueItem("elsewhere", (0, 0, 1, 1), ""))
    served = Served(
        Catalogue("test", items, queue=queue), SlidePool(items), TileMemory(), AnnotationStore(folder), author="anna"
    )
    with TestClient(make_app(served, Safety()), base_url="http://127.0.0.1", headers=OWN) as client:
        yield client
    served.close()


def save(client, base: int, *upserts: dict, deletes=(), author: str = "anna"):
    body = {"base_version": base, "upserts": upserts, "deletes": list(deletes)}
    return client.post(f"{ANNOTATIONS}/{author}", json=body)


def test_saved_work_comes_back_with_how_it_is_drawn(client):
    answer = save(client, 0, box(1))
    said = {"said": "Saved as version 1.", "refused": {}}
    assert (answer.status_code, answer.json()) == (200, {"version": 1, "features": None, **said})
    found = client.get(ANNOTATIONS).json()
    (feature,) = found["authors"]["anna"]["features"]
    assert feature["id"] == uid(1)
    assert feature["selector"]["geometry"]["bounds"] == {"minX": 10, "minY": 10, "maxX": 15, "maxY": 15}
    assert (found["authors"]["anna"]["version"], found["refused"], found["read_only"]) == (1, {}, "")
    assert found["classes"] == {"gland": "#e69f00", "Region": "#212529"}
    assert len(set(found["free_colours"])) == 21


def test_a_shape_by_numbers(client, folder):
    path = "/api/slides/id-a/shape"
    found = client.get(f"{path}?x=10&y=20&w=5&h=2.5&unit=um").json()  # 0.5 um per pixel
    assert found["selector"]["type"] == "RECTANGLE"
    assert found["selector"]["geometry"]["bounds"] == {"minX": 20, "minY": 40, "maxX": 30, "maxY": 45}
    found = client.get(f"{path}?x=10&y=20.5&w=&h=&unit=px0").json()
    assert (found["geometry"], found["editable"]) == ({"type": "Point", "coordinates": [10, 20.5]}, False)
    for wrong in ("x=1", "x=1&y=nan", "x=a&y=1", "x=1&y=1&w=inf&h=1"):
        assert "is no number" in client.get(f"{path}?{wrong}").json()["error"]
    assert not folder.exists()


def test_what_was_drawn_is_what_the_selector_says(client, folder):
    save(client, 0, box(1))
    (feature,) = client.get(ANNOTATIONS).json()["authors"]["anna"]["features"]
    feature["selector"]["geometry"] |= {"x": 20, "y": 30, "w": 40, "h": 50}
    assert save(client, 1, feature).json()["version"] == 2
    (item,) = read_geojson(folder / "a" / "anna.geojson")
    assert item.bounds_px0() == (20, 30, 60, 80)


def test_others_changes_come_with_the_answer(client):
    save(client, 0, box(1))
    save(client, 1, box(2))
    facts = save(client, 1, box(3)).json()
    assert [feature["id"] for feature in facts["features"]] == [uid(1), uid(2), uid(3)]
    facts = save(client, 1, box(3)).json()  # nothing new of this page, and yet others' work
    assert (facts["version"], len(facts["features"])) == (3, 3)


def test_of_a_conflict_both_versions_are_kept(client):
    save(client, 0, box(1, 10), box(2), box(3))
    save(client, 1, box(1, 20), box(3, 40), deletes=[uid(2)])
    for _ in range(2):  # sent again, because the answer was lost: nothing is added twice
        facts = save(client, 1, box(1, 30), box(2, 50), box(4), deletes=[uid(3)]).json()
        lefts = [(feature["id"], feature["geometry"]["coordinates"][0][0][0]) for feature in facts["features"]]
        (theirs, removed, mine, edited, new) = lefts
        assert (theirs, removed, new) == (
            (uid(1), 20),
            (uid(3), 40),
            (uid(4), box(4)["geometry"]["coordinates"][0][0][0]),
        )
        assert (mine[1], edited[1]) == (30, 50)
        assert {mine[0], edited[0]}.isdisjoint({uid(1), uid(2)})
        assert facts["version"] == 3
        assert facts["said"].endswith("Changed elsewhere in the meantime: 3; both versions are kept.")


CROSSING = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}


def test_objects_that_cannot_be_saved_are_named(client, folder):
    answer = save(client, 0, box(1), {**box(2), "geometry": CROSSING}, {**box(3), "geometry": {"type": "Circle"}})
    assert (answer.status_code, answer.json()["version"]) == (200, 1)  # the others are saved
    assert answer.json()["refused"].keys() == {uid(2), uid(3)}
    assert "its outline crosses itself near x 4.5, y 4.5" in answer.json()["refused"][uid(2)]
    assert answer.json()["said"].startswith("Saved as version 1, but for 2: its outline crosses itself")
    assert [item.object_id for item in read_geojson(folder / "a" / "anna.geojson")] == [uid(1)]


def test_where_nothing_can_be_saved_nothing_is(client, folder):
    answer = save(client, 0, {**box(2), "geometry": CROSSING})
    assert (answer.status_code, answer.json()["refused"].keys()) == (400, {uid(2)})
    assert not folder.exists()


BOX = box(1)
BODIES = [
    b"",
    b"[]",
    b"{",
    b"\xff",
    b"[" * 100_000,
    json.dumps({"upserts": []}).encode(),
    json.dumps({"base_version": -1}).encode(),
    json.dumps({"base_version": "0"}).encode(),
    json.dumps({"base_version": 0, "more": 1}).encode(),
    json.dumps({"base_version": 0, "upserts": {}}).encode(),
    json.dumps({"base_version": 0, "upserts": [1]}).encode(),
    json.dumps({"base_version": 0, "upserts": [{**BOX, "id": ""}]}).encode(),
    json.dumps({"base_version": 0, "upserts": [{**BOX, "id": "../../x"}]}).encode(),
    json.dumps({"base_version": 0, "upserts": [BOX, BOX]}).encode(),
    json.dumps({"base_version": 0, "upserts": [BOX], "deletes": [BOX["id"]]}).encode(),
    json.dumps({"base_version": 0, "deletes": ["x"]}).encode(),
    json.dumps({"base_version": 0, "upserts": [{**BOX, "geometry": None}]}).encode(),
    json.dumps({"base_version": 0, "upserts": [{**BOX, "selector": {"type": "RECTANGLE"}}]}).encode(),
    json.dumps({"base_version": 0, "upserts": [{**BOX, "selector": {"type": "STAR", "geometry": {}}}]}).encode(),
    json.dumps({"base_version": 0, "upserts": [{**BOX, "selector": 7}]}).encode(),
    json.dumps({"base_version": 0, "upserts": [{**BOX, "properties": {"name": "x" * 201}}]}).encode(),
    json.dumps({"base_version": 0, "upserts": [{**BOX, "properties": {"childObjects": [BOX]}}]}).encode(),
    json.dumps({"base_version": 0, "upserts": [{**BOX, "properties": {"objectType": "root"}}]}).encode(),
    json.dumps({"base_version": 0, "upserts": [BOX]}).replace("[10,", "[NaN,").encode(),
    json.dumps({"base_version": 0, "upserts": [BOX]}).replace("[10,", "[1e999,").encode(),
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_bad_bodies_are_refused_in_words_and_leave_nothing(client, folder, body):
    answer = client.post(f"{ANNOTATIONS}/anna", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert not folder.exists()


def test_limits(client, folder, monkeypatch):
    from lamella.view.server.annotations import objects

    monkeypatch.setattr(objects, "MAX_OBJECTS", 3)
    assert save(client, 0, box(1), box(2), box(3)).status_code == 200
    answer = save(client, 1, box(4))
    assert "more than 3 objects cannot be edited in a page" in answer.json()["error"]
    answer = client.post(f"{ANNOTATIONS}/bob/import", json=[box(at) for at in range(4)])
    assert "more than 3 objects" in answer.json()["error"]
    monkeypatch.setattr(objects, "MAX_CORNERS", 7)
    assert "more than 7 corners" in save(client, 0, box(1), box(2), author="bob").json()["error"]
    assert not (folder / "a" / "bob.geojson").exists()


@pytest.mark.parametrize(
    "path",
    [
        f"{ANNOTATIONS}/..%2f..%2fx",
        f"{ANNOTATIONS}/%2e%2e",
        f"{ANNOTATIONS}/..%5cx",
        f"{ANNOTATIONS}/a%00b",
        f"{ANNOTATIONS}/.hidden",
        "/api/slides/nobody/annotations/anna",
        "/api/slides/..%2fid-a/annotations/anna",
    ],
)
def test_names_do_not_lead_out(client, folder, tmp_path, path):
    before = set(tmp_path.rglob("*"))
    assert client.post(path, json={"base_version": 0, "upserts": [box(1)]}).status_code in (400, 404, 405)
    assert client.get(f"{path}.geojson").status_code in (400, 404)
    assert set(tmp_path.rglob("*")) == before


def test_import_of_qupaths_export(client, folder):
    feature = {**box(1), "properties": {"objectType": "annotation", "name": "first", "isLocked": True}}
    plain = {"type": "Feature", "geometry": {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}}
    document = {"type": "FeatureCollection", "features": [feature, plain]}
    for version in (1, 1):  # twice the same file: nothing new
        answer = client.post(f"{ANNOTATIONS}/anna/import", json=document)
        assert (answer.status_code, answer.json()) == (200, {"read": 2, "version": version})
    found = list(read_geojson(folder / "a" / "anna.geojson"))
    assert [(item.name, item.locked) for item in found] == [("first", True), ("", False)]
    assert found[1].points.tolist() == [[1, 2], [3, 4]]
    exported = client.get(f"{ANNOTATIONS}/anna.geojson")
    assert exported.content == (folder / "a" / "anna.geojson").read_bytes()
    assert exported.headers["content-disposition"] == "attachment"
    assert client.get(f"{ANNOTATIONS}/bob.geojson").status_code == 404


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([box(1), {**box(2), "geometry": CROSSING}], "the file: feature 2: its outline crosses itself"),
        ([box(1), box(2), 7], "the file: feature 3: it is no object"),
        ({"type": "FeatureCollection", "features": 3}, "it is no GeoJSON"),
        ("text", "it is no GeoJSON"),
        ({"type": "Feature"}, "feature 1: it has no geometry"),
    ],
)
def test_malformed_files_are_refused_by_feature(client, folder, document, reason):
    answer = client.post(f"{ANNOTATIONS}/anna/import", json=document)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]
    assert not folder.exists()


def test_a_damaged_author_file_is_said_and_the_rest_shown(client, folder):
    save(client, 0, box(1))
    (folder / "a" / "bob.geojson").write_text('{"type": "FeatureCollection", "features": [')
    found = client.get(ANNOTATIONS).json()
    assert found["authors"].keys() == {"anna"}
    assert "it is cut short" in found["refused"]["bob"]


def test_cross_site_saves_are_refused(client, folder):
    answer = client.post(
        f"{ANNOTATIONS}/anna",
        json={"base_version": 0, "upserts": [box(1)]},
        headers={"origin": "http://elsewhere.example", "sec-fetch-site": "cross-site"},
    )
    assert answer.status_code == 403
    assert not folder.exists()


def test_the_queue_is_worked_through(client, folder):
    (place,) = client.get("/api/slides/id-a/queue").json()["places"]
    assert place == {"key": "a 10 20 30 40", "box": [10.4, 20, 30, 40], "why": "likeliest gland", "done_by": None}
    assert client.get("/api/queue").json()["places"] == [{"slide": "id-a", **place}]
    body = {"key": place["key"], "done": True, "author": "anna"}
    assert client.post("/api/slides/id-a/queue", json=body).json() == {"done": True}
    assert client.get("/api/slides/id-a/queue").json()["places"][0]["done_by"] == "anna"
    assert client.post("/api/slides/id-a/queue", json={**body, "done": False}).json() == {"done": False}
    assert client.get("/api/slides/id-a/queue").json()["places"][0]["done_by"] is None
    assert client.post("/api/slides/id-a/queue", json={**body, "key": "b 1 2 3 4"}).status_code == 404
    assert client.post("/api/slides/id-a/queue", json={**body, "author": "../x"}).status_code == 400
    assert json.loads((folder / "queue.json").read_text()) == {}
