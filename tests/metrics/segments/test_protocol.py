from __future__ import annotations

from dataclasses import replace

import pytest
from tests.metrics.segments.segment_rows import AUTOMATIC, PROMPTED, WEAK, protocol

from lamella.metrics.segments.protocol import (
    LABEL_ORACLE,
    NO_PROMPT,
    WEAK_PROMPTS,
    Protocol,
    ProtocolError,
    refuse_mixed,
    split_digest,
)


@pytest.mark.parametrize(
    "changes",
    [
        {"oracle": True},
        {"prompt": "box"},
        {"prompt": ""},
        {"task": "semi"},
        {"task": "prompted"},
        {"task": "prompted", "prompt": "box"},
        {"task": "prompted", "oracle": True},
        {"task": "weak", "oracle": True},
        {"n": 0},
        {"classes": ()},
        {"split": ""},
        {"scored": ""},
    ],
)
def test_conditions_that_contradict_each_other_cannot_be_stated(changes):
    with pytest.raises(ProtocolError):
        replace(protocol(), **changes)


@pytest.mark.parametrize("given", [AUTOMATIC, PROMPTED, WEAK], ids=lambda given: given["task"])
def test_a_protocol_survives_a_file_and_a_changed_one_is_found_out(given):
    stated = protocol(given)
    tree = stated.tree()
    assert Protocol.of_tree(tree) == stated
    for key, value in {"n": 3, "split": "0" * 16, "classes": ["gland"], "scored": "objects", "hash": "0" * 16}.items():
        with pytest.raises(ProtocolError, match="does not belong to these conditions"):
            Protocol.of_tree({**tree, key: value})
    with pytest.raises(ProtocolError, match="a protocol has"):
        Protocol.of_tree({key: value for key, value in tree.items() if key != "ignored"})


def test_the_hash_is_the_same_tomorrow_and_on_another_machine():
    """A hash in a results file must mean the same in every version; a change of this number is a change of format."""
    assert (protocol().hash, protocol().table) == ("55b04c76e164d737", "56d0b6d179c40146")


@pytest.mark.parametrize(
    "changes",
    [
        {"ignored": ()},
        {"split": split_digest([("a", "p1")])},
        {"classes": ("gland", "background")},
        {"mpp": 0.25},
        {"mpp": None},
        {"scored": "objects"},
        {"n": 3},
    ],
)
def test_every_condition_of_the_table_changes_both_hashes_and_is_named(changes):
    one, other = protocol(), protocol(**changes)
    assert one.hash != other.hash
    assert one.table != other.table
    with pytest.raises(ProtocolError, match=f"{next(iter(changes))}: .* and "):
        refuse_mixed([one, other], "toys")


def test_the_prompt_changes_the_row_and_not_the_table():
    box, click = protocol(PROMPTED), protocol(PROMPTED, prompt="1 click")
    assert box.hash != click.hash
    assert box.table == click.table
    refuse_mixed([box, click, box], "toys")


@pytest.mark.parametrize("prompt", WEAK_PROMPTS)
def test_a_weak_row_may_be_told_labels_of_the_image_and_stays_in_its_table(prompt):
    told = protocol(WEAK, prompt=prompt)
    assert told.table == protocol(WEAK).table
    assert (told.hash == protocol(WEAK).hash) == (prompt == NO_PROMPT)
    assert told.label_oracle == (prompt == LABEL_ORACLE)
    assert Protocol.of_tree(told.tree()) == told
    for given in (AUTOMATIC, {**PROMPTED, "prompt": NO_PROMPT}):
        if prompt != NO_PROMPT:
            with pytest.raises(ProtocolError):
                protocol(given, prompt=prompt, oracle=False, task="automatic")


def test_what_a_weak_row_may_be_told_is_a_closed_list():
    for prompt in ("box", "the labels", ""):
        with pytest.raises(ProtocolError, match="a weak row has one of"):
            protocol(WEAK, prompt=prompt)


def test_what_is_the_same_has_the_same_hash():
    one = protocol(ignored=("7 (exclude)", "0 (outside)"), mpp=1)
    assert one.hash == protocol(ignored=["0 (outside)", "7 (exclude)"], mpp=1.0).hash
    items = [("a", "p1"), ("b", "p2")]
    assert split_digest(items) == split_digest(reversed(items))
    assert split_digest(items) != split_digest([("a", "p2"), ("b", "p1")])
    # No two lists of texts run together.
    assert split_digest([("a", "bc")]) != split_digest([("ab", "c")])
