from __future__ import annotations

from dataclasses import replace

import pytest
from tests.metrics.image_studies import study

from lamella.metrics.ask_sites import _parts, ask_sites
from lamella.metrics.image_study import with_classes
from lamella.metrics.study import CannotAsk


def test_each_site_and_the_worst_of_them() -> None:
    base = study(sites=3, signal=2.0)
    blind = base.sites == 1
    seen = base.features["ours"][0].copy()
    seen[blind, :2] = 0  # at one site the encoder sees nothing
    answer = ask_sites(replace(base, features={**base.features, "ours": (seen,)}))
    found = {row.probe: row.estimate.value for row in answer.rows if (row.measure, row.encoder) == ("AUC", "ours")}
    assert found["linear, without site 0"] > 0.9
    assert found["linear, without site 1"] == pytest.approx(0.5, abs=0.3)
    worst = [r for r in answer.rows if (r.measure, r.encoder) == ("AUC at the worst site", "ours")]
    assert worst[0].estimate.value == pytest.approx(min(found.values()))
    assert {line["site"] for line in answer.tables["sites"]} == {"site 0", "site 1", "site 2"}


@pytest.mark.parametrize("split", [True, False])
def test_no_group_and_no_site_of_the_judged_rows_is_fitted_on(split: bool) -> None:
    base = with_classes(study(sites=3, split=split))
    parts, _, _ = _parts(base)
    for part in parts:
        for rows in (part.train, part.val):
            assert not set(base.groups[rows]) & set(base.groups[part.test])
            assert not set(base.sites[rows]) & set(base.sites[part.test])


def test_no_sites_and_one_site_are_said() -> None:
    with pytest.raises(CannotAsk, match="no item states its site"):
        ask_sites(study())
    with pytest.raises(CannotAsk, match=r"leaving one out needs two|teach one class only"):
        ask_sites(study(sites=1))
