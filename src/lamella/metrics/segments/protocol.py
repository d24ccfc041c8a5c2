"""Under which conditions a segmentation was scored. Numbers of different conditions never share a table.

Three tasks, three tables. prompted: class and prompt were taken from the truth (an oracle). automatic: no truth at test
time. weak: no masks in training. A Dice of 0.95 with the true box given and one of 0.85 without are not better and
worse: they answer different questions.

A weak row may know more than the image: the labels of the whole image that the model itself predicts, or the true ones,
which nobody has of a new image. Such rows stand beside the others, and each says which it is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Task = Literal["prompted", "automatic", "weak"]

NO_PROMPT = "none"
ORACLE = "oracle: class and prompt given"
PREDICTED_LABELS = "predicted image labels"
LABEL_ORACLE = "label oracle: true image labels"
WEAK_PROMPTS = (NO_PROMPT, PREDICTED_LABELS, LABEL_ORACLE)
"""What a weak row was told of the whole image."""
FLAG = "LABEL ORACLE"
"""What the name of a row contains that was told the true labels of the judged images."""
HEADS: dict[Task, str] = {
    "prompted": f"Prompted ({ORACLE})",
    "automatic": "Automatic (no truth at test time)",
    "weak": "Weak (trained without masks)",
}
"""What the title of a table begins with: a reader who sees nothing else sees this."""
_HEX = 16


class ProtocolError(ValueError):
    """Numbers that may not be compared. A fault of the code that makes a table, not of the user."""


@dataclass(frozen=True)
class Protocol:
    """The conditions of one row. All but the prompt are the table's: rows of one table share them.

    Attributes:
        task: prompted, automatic or weak.
        oracle: Whether the true masks were used at test time: always of prompted, never of the others.
        prompt: What a prompted model was given, such as `box` or `3 clicks`; of a weak one, one of WEAK_PROMPTS;
            NO_PROMPT otherwise.
        ignored: What was left out of the score, such as `255 (not labelled)`; sorted.
        split: Digest of the judged items, see `split_digest`.
        classes: Names of the scored classes in the order of the channels.
        mpp: Micrometres per pixel of the grid that was scored; None where pixels are of each image's own size.
        scored: What a count is made of: `pixels`, or a text that says which objects.
        n: How many of them, or how many images.

    Raises:
        ProtocolError: The conditions contradict each other.
    """

    task: Task
    oracle: bool
    prompt: str
    ignored: tuple[str, ...]
    split: str
    classes: tuple[str, ...]
    mpp: float | None
    scored: str
    n: int

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise ProtocolError(f"the task is one of {', '.join(get_args(Task))}, not {self.task!r}")
        if self.oracle != (self.task == "prompted"):
            raise ProtocolError(
                f"{self.task} with oracle={self.oracle}: prompts are cut from the truth, and nothing else may be"
            )
        self._refuse_other_prompt()
        if self.n < 1 or not self.classes or not self.split or not self.scored:
            raise ProtocolError("a protocol states its classes, its split, what was scored and how many (n >= 1)")
        # Lists and unsorted names of a caller must not make another hash of the same conditions.
        object.__setattr__(self, "ignored", tuple(sorted(self.ignored)))
        object.__setattr__(self, "classes", tuple(self.classes))

    def _refuse_other_prompt(self) -> None:
        if self.task == "weak":
            if self.prompt not in WEAK_PROMPTS:
                raise ProtocolError(
                    f"weak with prompt {self.prompt!r}: a weak row has one of {', '.join(WEAK_PROMPTS)}"
                )
        elif not self.prompt or (self.prompt == NO_PROMPT) == (self.task == "prompted"):
            raise ProtocolError(
                f"{self.task} with prompt {self.prompt!r}: prompted rows have a prompt, weak ones may name image "
                "labels, and others have none"
            )

    @property
    def label_oracle(self) -> bool:
        """Whether the row was told the true labels of the judged images."""
        return self.prompt == LABEL_ORACLE

    @property
    def hash(self) -> str:
        """16 hex digits of all conditions."""
        return _digest(self._facts())

    @property
    def table(self) -> str:
        """16 hex digits of the table's conditions: all but the prompt."""
        return _digest({key: value for key, value in self._facts().items() if key != "prompt"})

    @property
    def head(self) -> str:
        """What the title of its table begins with."""
        return HEADS[self.task]

    def question(self, what: str) -> str:
        """The title of a table under these conditions, such as `Automatic (no truth at test time): GlaS`."""
        return f"{self.head}: {what}"

    def tree(self) -> dict[str, Any]:
        """As plain values for a file, both hashes with them."""
        return {**self._facts(), "hash": self.hash, "table": self.table}

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any]) -> Protocol:
        """Read back what `tree` gave.

        Raises:
            ProtocolError: A key is missing or unknown, or the hashes do not belong to the conditions.
        """
        facts = {key: value for key, value in tree.items() if key not in ("hash", "table")}
        names = {field.name for field in dataclasses.fields(cls)}
        if set(facts) != names:
            raise ProtocolError(f"a protocol has {', '.join(sorted(names))}, not {', '.join(sorted(facts))}")
        found = cls(**{**facts, "ignored": tuple(facts["ignored"]), "classes": tuple(facts["classes"])})
        for name, own in (("hash", found.hash), ("table", found.table)):
            if tree.get(name, own) != own:
                raise ProtocolError(f"the {name} {tree[name]} does not belong to these conditions ({own})")
        return found

    def differences(self, other: Protocol) -> list[str]:
        """`task: prompted and automatic` for every condition of the table that differs."""
        mine, theirs = self._facts(), other._facts()
        return [f"{key}: {mine[key]} and {theirs[key]}" for key in mine if key != "prompt" and mine[key] != theirs[key]]

    def _facts(self) -> dict[str, Any]:
        """As JSON gives them back; a whole number and its float are one mpp."""
        facts = {**dataclasses.asdict(self), "ignored": list(self.ignored), "classes": list(self.classes)}
        return {**facts, "mpp": None if self.mpp is None else float(self.mpp)}


def split_digest(items: Iterable[tuple[str, str]]) -> str:
    """16 hex digits of which items are judged, in any order.

    Args:
        items: (item id, group) of each.
    """
    return _digest(sorted([str(item), str(group)] for item, group in items))


def refuse_mixed(protocols: Iterable[Protocol | None], where: str) -> None:
    """Refuse rows of different conditions in one table; None is a row of a question without a protocol.

    Raises:
        ProtocolError: Names what differs.
    """
    found = dict.fromkeys(protocols)
    given = [protocol for protocol in found if protocol is not None]
    if given and len(given) < len(found):
        raise ProtocolError(f"{where}: rows with and without a protocol may not stand in one table")
    for protocol in given[1:]:
        if protocol.table != given[0].table:
            differing = "; ".join(given[0].differences(protocol))
            raise ProtocolError(f"{where}: rows of different protocols may not stand in one table ({differing})")


def refuse_mixed_trees(rows: Iterable[Mapping[str, Any]], where: str) -> None:
    """The same of rows as a results file holds them, before they are put into one table.

    Raises:
        ProtocolError: They differ, or a protocol was changed after it was written.
    """
    found = [row.get("protocol") for row in rows]
    refuse_mixed([None if tree is None else Protocol.of_tree(tree) for tree in found], where)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_HEX]
