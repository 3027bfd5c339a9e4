"""Scores of samples: masked error and distance of features, and what can be done with them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from mimsuite.checkpoints import open_model
from mimsuite.cli.main import main
from mimsuite.config import with_overrides
from mimsuite.data import open_source, open_split
from mimsuite.errors import UserError
from mimsuite.evaluate.probes.difficulty import auroc, masked_errors, neighbour_distances
from mimsuite.noise import Noise
from mimsuite.train.step import run_method


def test_auroc_counts_pairs_and_halves_ties():
    scores = torch.tensor([0.1, 0.4, 0.4, 0.8, 0.9])
    anomalous = torch.tensor([False, False, True, True, False])
    # Pairs won of 6: 0.4 beats 0.1 and ties 0.4; 0.8 beats 0.1 and 0.4.
    assert auroc(scores, anomalous) == pytest.approx(3.5 / 6)


def test_distance_to_the_nearest_others():
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    assert neighbour_distances(features, features, 1, same=True).tolist() == [0.0, 0.0, 1.0]
    assert neighbour_distances(features, -features[:1], 3).tolist() == pytest.approx([5 / 3])
    with pytest.raises(UserError, match="3 neighbours of 2 other"):
        neighbour_distances(features, features, 3, same=True)


def test_a_sample_scores_alike_wherever_it_is_batched(run: Path):
    opened = open_model(str(run))
    source = open_split(opened.resolved.recipe, "test")
    errors = masked_errors(opened.method, source, opened.resolved, masks=4)
    assert len(errors) == len(source)
    assert min(errors.values()) > 0
    smaller = with_overrides(opened.resolved, {"eval.batch": 5})
    again = masked_errors(opened.method, source, smaller, masks=4)
    assert again == pytest.approx(errors)
    more = masked_errors(opened.method, source, opened.resolved, masks=4, seed=1)
    assert more != pytest.approx(errors)


def test_the_error_is_the_loss_under_keyed_masks(run: Path):
    from mimsuite.evaluate.features import normalized_batches

    opened = open_model(str(run))
    source = open_split(opened.resolved.recipe, "test")
    errors = masked_errors(opened.method, source, opened.resolved, masks=1)
    device = torch.device("cpu")
    method = opened.method.eval()
    with torch.inference_mode():
        batch = next(iter(normalized_batches(source, opened.resolved, device)))
        whole = run_method(method, batch, Noise(0, 0, batch.index)).loss
    mean = sum(errors[key] for key in batch.keys) / len(batch)
    assert mean == pytest.approx(float(whole), rel=1e-5)


def test_the_command_scores_and_pack_takes_a_part(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    table = tmp_path / "scores.csv"
    words = ["score", str(run), "--out", str(table), "--split", "test", "--masks", "2"]
    capsys.readouterr()
    assert main([*words, "--anomaly", "red", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["samples"] == 18
    assert 0 <= answer["auroc_masked_error"] <= 1
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["masked_error"]) for r in rows] == sorted(
        (float(r["masked_error"]) for r in rows), reverse=True
    )
    easiest = [row["key"] for row in rows[9:]]
    (tmp_path / "easy.txt").write_text("\n".join(easiest))
    out = tmp_path / "packed"
    pack = ["data", "pack", str(pictures), str(out), "--split", "test"]
    assert main([*pack, "--only", str(tmp_path / "easy.txt")]) == 0
    assert len(open_source(str(out), "test")) == 9
    assert main([*pack[:3], str(tmp_path / "all"), *pack[4:], "--only", str(table)]) == 0
    assert len(open_source(str(tmp_path / "all"), "test")) == 18


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--anomaly", "purple"], "--anomaly purple: no such class: blue, green, red"),
        (["--anomaly", "red,green,blue"], "but not all"),
        (["--neighbours", "400"], "ask for fewer"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, capsys, more, said):
    capsys.readouterr()
    assert main(["score", str(run), "--out", str(tmp_path / "s.csv"), "--masks", "1", *more]) == 2
    assert said in capsys.readouterr().err


def test_a_list_that_names_nothing(pictures: Path, tmp_path: Path, capsys):
    empty, other = tmp_path / "empty.txt", tmp_path / "other.txt"
    empty.write_text("\n")
    other.write_text("no/such/sample\n")
    pack = ["data", "pack", str(pictures), str(tmp_path / "packed"), "--only"]
    for file, code, said in ((empty, 2, "no sample is named"), (other, 3, "none of the 1 named")):
        capsys.readouterr()
        assert main([*pack, str(file)]) == code
        assert said in capsys.readouterr().err
