from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lamella.errors import CheckpointError
from lamella.models.prototypes import (
    FEATURES_FILE,
    PROTOTYPES_FILE,
    Prototypes,
    import_torch_prototypes,
    load_prototypes,
    random_prototypes,
    save_prototypes,
    unit_length,
)


@pytest.mark.parametrize("dim", [3, 512, 1280])
def test_what_is_saved_is_loaded_whatever_the_width(tmp_path: Path, dim: int) -> None:
    # A mistake of the source: 512 dimensions were written into the code.
    saved = random_prototypes(("gland", "stroma", "background"), (3, 1, 2), dim, seed=0)
    save_prototypes(tmp_path, saved)
    loaded = load_prototypes(tmp_path)
    assert torch.equal(loaded.features_KD, saved.features_KD)
    assert (loaded.classes, loaded.k_list, loaded.cumsum_k) == (saved.classes, saved.k_list, (0, 3, 4, 6))
    assert (loaded.encoder, loaded.fingerprint, loaded.facts, loaded.dim) == ("random", "random", saved.facts, dim)
    assert loaded.class_of_K.tolist() == [0, 0, 0, 1, 2, 2]


def test_the_file_names_what_the_source_names(tmp_path: Path) -> None:
    save_prototypes(tmp_path, random_prototypes(("benign", "tumor"), (3, 3), 16, seed=0))
    record = json.loads((tmp_path / PROTOTYPES_FILE).read_text())
    assert (record["class_order"], record["k_list"], record["cumsum_k"]) == (["benign", "tumor"], [3, 3], [0, 3, 6])


def test_saving_replaces(tmp_path: Path) -> None:
    save_prototypes(tmp_path, random_prototypes(("a",), (2,), 4, seed=0))
    other = random_prototypes(("a", "b"), (1, 1), 5, seed=1)
    save_prototypes(tmp_path, other)
    assert torch.equal(load_prototypes(tmp_path).features_KD, other.features_KD)


def test_random_prototypes_are_of_their_seed() -> None:
    first, again, other = (random_prototypes(("a",), (3,), 8, seed=seed).features_KD for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_classes_can_be_put_in_another_order() -> None:
    found = random_prototypes(("a", "b", "c"), (1, 2, 3), 4, seed=0)
    other = found.ordered(["c", "a"])
    assert (other.classes, other.k_list) == (("c", "a"), (3, 1))
    assert torch.equal(other.features_KD, torch.cat([found.features_KD[3:], found.features_KD[:1]]))


@pytest.mark.parametrize(
    ("features", "classes", "k_list", "message"),
    [
        (torch.eye(3), ("a", "b"), (1, 1), "do not divide"),
        (torch.eye(3), ("a", "b"), (3, 0), "do not divide"),
        (torch.eye(3), ("a",), (1, 2), "2 counts"),
        (torch.eye(3), ("a", "a"), (1, 2), "2 counts"),
        (2 * torch.eye(2), ("a", "b"), (1, 1), "unit length"),
        (torch.full((2, 2), torch.nan), ("a", "b"), (1, 1), "not finite"),
        (torch.eye(2).double(), ("a", "b"), (1, 1), "float32"),
        (torch.ones(2), ("a", "b"), (1, 1), "float32"),
    ],
)
def test_what_does_not_fit_together_is_refused(features: torch.Tensor, classes, k_list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prototypes(features, classes, k_list, "e", "f")


def test_unit_length_takes_any_finite_feature() -> None:
    features = torch.tensor([[3e38, 3e38], [1e-40, 0.0], [3.0, 4.0]])
    expected = torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(unit_length(features), expected)
    half = torch.tensor([[60000.0, 60000.0]], dtype=torch.float16)  # its length does not fit 16 bits
    torch.testing.assert_close(unit_length(half), expected[:1])


def test_a_folder_without_prototypes_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no prototypes.*lamella weak prototypes"):
        load_prototypes(tmp_path)


def test_files_of_two_runs_are_refused(tmp_path: Path) -> None:
    for number in (0, 1):
        save_prototypes(tmp_path / str(number), random_prototypes(("a",), (2,), 4, seed=number))
    (tmp_path / "0" / FEATURES_FILE).write_bytes((tmp_path / "1" / FEATURES_FILE).read_bytes())
    with pytest.raises(CheckpointError, match="not written together"):
        load_prototypes(tmp_path / "0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other-1"}, "no prototypes of this version"),
        ({"k_list": [1]}, "describes no prototypes"),
        ({"class_order": None}, "describes no prototypes"),
    ],
)
def test_a_changed_record_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    save_prototypes(tmp_path, random_prototypes(("a",), (2,), 4, seed=0))
    path = tmp_path / PROTOTYPES_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        load_prototypes(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    save_prototypes(tmp_path, random_prototypes(("a",), (2,), 4, seed=0))
    (tmp_path / PROTOTYPES_FILE).write_text(text)
    with pytest.raises(CheckpointError):
        load_prototypes(tmp_path)


def _source(**changes: object) -> dict[str, object]:
    """What the source's stage 2 keeps."""
    features = torch.arange(1.0, 25.0).reshape(6, 4)
    return {
        "features": features,
        "k_list": [3, 3],
        "class_order": ["benign", "tumor"],
        "cumsum_k": [0, 3, 6],
        **changes,
    }


def test_a_torch_file_of_the_source_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "label_fea_pro.pkl"
    torch.save(_source(), path)
    found = import_torch_prototypes(path)
    assert (found.classes, found.k_list, found.cumsum_k) == (("benign", "tumor"), (3, 3), (0, 3, 6))
    expected = np.arange(1.0, 25.0).reshape(6, 4)
    np.testing.assert_allclose(
        found.features_KD.numpy(), expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6
    )


def test_representatives_of_the_source_become_prototypes(tmp_path: Path) -> None:
    path = tmp_path / "label_fea_pro.pkl"
    torch.save(_source(k_list=[1, 2], nk=2, cumsum_k=[0, 1, 3]), path)
    found = import_torch_prototypes(path)
    assert (found.k_list, found.cumsum_k) == ((2, 4), (0, 2, 6))


class _Runs:
    """A pickle of this touches a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    path, touched = tmp_path / "label_fea_pro.pkl", tmp_path / "touched"
    path.write_bytes(pickle.dumps({"features": _Runs(touched)}))
    with pytest.raises(CheckpointError, match=r"pickles are never read.*torch\.save"):
        import_torch_prototypes(path)
    torch.save({"features": _Runs(touched)}, path)
    with pytest.raises(CheckpointError, match="more than tensors"):
        import_torch_prototypes(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k_list": [3, 2]}, "do not fit"),
        ({"cumsum_k": [0, 2, 6]}, "cumsum_k"),
        ({"class_order": ["one"]}, "do not fit"),
        ({"features": torch.full((6, 4), torch.inf, dtype=torch.float16)}, "not finite"),
        ({"features": torch.zeros(6, 4)}, "no direction"),
        ({"features": [1, 2]}, "do not fit"),
    ],
)
def test_a_torch_file_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "x.pkl"
    torch.save(_source(**changes), path)
    with pytest.raises(CheckpointError, match=message):
        import_torch_prototypes(path)


def test_a_torch_file_without_prototypes_is_refused(tmp_path: Path) -> None:
    torch.save({"features": torch.eye(2)}, tmp_path / "x.pkl")
    with pytest.raises(CheckpointError, match="no k_list, class_order"):
        import_torch_prototypes(tmp_path / "x.pkl")
    with pytest.raises(CheckpointError, match="does not exist"):
        import_torch_prototypes(tmp_path / "absent.pkl")
