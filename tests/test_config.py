"""Layers, origins, variants and errors of the settings."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from lamella.config import Request, Settings, describe, profile_path, resolve, shipped_profiles
from lamella.errors import ConfigError


class Adam(Settings):
    name: Literal["adam"] = "adam"
    lr: float = 1e-3
    """Learning rate."""
    beta: float = 0.9


class Plain(Settings):
    name: Literal["plain"] = "plain"
    lr: float = 0.1
    momentum: float = 0.0


class Data(Settings):
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images of one step."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)


class Schema(Settings):
    optim: Annotated[Adam | Plain, Field(discriminator="name")] = Adam()
    data: Data = Data()
    seed: int = 0


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def problems_of(**layers):
    with pytest.raises(ConfigError) as caught:
        resolve(Schema, **layers)
    return caught.value.problems


def test_later_layers_win_and_every_leaf_knows_its_origin(write):
    profile = write("p.yaml", "optim:\n  lr: 0.5\n  beta: 0.8\nseed: 1\n")
    run = write("r.yaml", "optim:\n  lr: 0.25\n")
    resolved = resolve(Schema, profile, run, ["data.batch_size=16"])
    assert (resolved.config.optim.lr, resolved.config.optim.beta) == (0.25, 0.8)
    assert (resolved.config.data.batch_size, resolved.config.seed) == (16, 1)
    assert resolved.origins["optim.lr"] == f"{run}:2"
    assert resolved.origins["optim.beta"] == f"{profile}:3"
    assert resolved.origins["data.batch_size"] == "command line"
    assert resolved.origins["data.mean"] == "default"


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", ".0001"])
def test_scientific_notation_is_a_number_in_files_and_on_the_command_line(write, text):
    assert resolve(Schema, run=write("r.yaml", f"optim: {{lr: {text}}}")).config.optim.lr == 1e-4
    assert resolve(Schema, overrides=[f"optim.lr={text}"]).config.optim.lr == 1e-4


def test_a_changed_variant_replaces_its_whole_block(write):
    profile = write("p.yaml", "optim:\n  lr: 0.5\n  beta: 0.8\n")
    resolved = resolve(Schema, profile, overrides=["optim.momentum=0.7", "optim.name=plain"])
    assert resolved.config.optim == Plain(lr=0.1, momentum=0.7)  # lr 0.5 was adam's
    assert "optim.beta" not in resolved.origins
    assert resolved.origins["optim.lr"] == "default"


def test_the_same_variant_named_again_keeps_its_settings(write):
    profile = write("p.yaml", "optim:\n  lr: 0.5\n")
    assert resolve(Schema, profile, write("r.yaml", "optim: {name: adam, beta: 0.1}")).config.optim.lr == 0.5


def test_all_problems_come_at_once_with_suggestion_and_origin(write):
    run = write("r.yaml", "data:\n  batchsize: 4\n  mean: 3\nlr: 1\n")
    problems = problems_of(run=run, overrides=["seed=abc", "data.batch_size=0", "nonsense"])
    text = "\n".join(problems)
    assert f"data.batchsize: unknown key; did you mean data.batch_size? ({run}:2)" in problems
    assert f"lr: unknown key; did you mean optim.lr? ({run}:4)" in problems
    assert any(line.startswith("seed: ") and "'abc' (command line)" in line for line in problems)
    assert any(line.startswith("data.mean: ") and f"({run}:3)" in line for line in problems)
    assert any(line.startswith("data.batch_size: ") and "greater than or equal to 1" in line for line in problems)
    assert "nonsense: not a setting; write key=value" in text
    assert len(problems) == 6


def test_an_unknown_variant_and_a_key_of_the_other_variant_are_explained():
    assert problems_of(overrides=["optim.name=adan"]) == [
        "optim.name: 'adan' is not one of 'adam', 'plain'; did you mean adam? (command line)"
    ]
    assert problems_of(overrides=["optim.momentum=1"]) == [
        "optim.momentum: unknown key; it belongs to optim.name=plain (command line)"
    ]


def test_a_repeated_key_and_a_broken_file_are_refused(write):
    twice = write("twice.yaml", "seed: 1\nseed: 2\n")
    assert problems_of(run=twice) == [f"seed: stands twice ({twice}:2); keep one"]
    assert "is not YAML" in problems_of(run=write("broken.yaml", "a: [1,"))[0]
    assert "cannot be read" in problems_of(run=twice.with_name("absent.yaml"))[0]
    assert "must hold keys and values" in problems_of(run=write("list.yaml", "- 1\n"))[0]


def test_the_written_tree_repeats_the_run(write):
    import yaml

    first = resolve(Schema, overrides=["optim.name=plain", "optim.lr=3e-7", "data.mean=[1, 2, 3]"])
    again = resolve(Schema, run=write("config.yaml", yaml.safe_dump(first.tree())))
    assert again.config == first.config


def test_describe_lists_every_leaf_with_type_default_and_description():
    rows = {path: (kind, default, text) for path, kind, default, text in describe(Schema)}
    assert rows["optim[name=adam].lr"] == ("float", "0.001", "Learning rate.")
    assert rows["data.batch_size"] == ("int", "8", "Images of one step.")
    assert set(rows) >= {"optim[name=plain].momentum", "data.mean", "seed"}


def test_a_misspelt_profile_gets_the_nearest_name():
    name = "ctx1p0_tgt0p5_fov512um_k4"
    assert profile_path(name) == shipped_profiles()[name]
    with pytest.raises(ConfigError, match=f"did you mean {name}"):
        profile_path("ctx1p0_tgt0p5_fov512um_k8")


def test_a_request_resolves_with_its_verb_in_the_remedy():
    with pytest.raises(ConfigError, match="lamella config pretrain"):
        Request("pretrain", overrides=("x=1",)).resolve(Schema)


def test_described_defaults_are_those_that_resolve_takes():
    class Block(Settings):
        lr: float = 0.1
        steps: int = 5

    class Verb(Settings):
        optim: Block = Block(lr=0.5)

    shown = {path: default for path, _, default, _ in describe(Verb)}
    assert shown == {"optim.lr": "0.5", "optim.steps": "5"}
    assert resolve(Verb).config.optim.lr == 0.5


def test_a_verb_may_ask_for_one_value_before_it_knows_its_schema(tmp_path):
    run = tmp_path / "run.yaml"
    run.write_text("method: {name: ijepa}\n")
    assert Request("pretrain", run=run).chosen("method.name") == "ijepa"
    assert Request("pretrain", run=run, overrides=("method.name=jepa",)).chosen("method.name") == "jepa"
    assert Request("pretrain", run=run).chosen("method.encoder.dim") is None
    assert Request("pretrain").chosen("method.name") is None
