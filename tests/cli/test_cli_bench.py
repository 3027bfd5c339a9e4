"""`mimsuite bench`: figures for machines, with what they depend on."""

from __future__ import annotations

import json

import pytest

from mimsuite.cli.main import main

TINY = "image/mae-tiny-fashion"
FACTS = {"device", "threads", "cores", "load", "torch", "precision"}


def figures(capfd, *words: object) -> dict:
    capfd.readouterr()
    assert main(["bench", *map(str, words), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_a_step_as_a_share_of_the_matrix_products_of_the_same_run(capfd):
    words = ["step", TINY, "model.encoder.depth=1", "train.device=cpu", "--rounds", 1]
    found = figures(capfd, *words, "--batch", 8)
    assert found.keys() >= FACTS
    assert found["gflops"] == pytest.approx(
        found["gflop_per_sample"] * 8 / found["seconds_per_step"]
    )
    assert found["share_of_gemm"] == pytest.approx(found["gflops"] / found["gemm_gflops"])
    assert 0 < found["share_of_gemm"] < 1.2
    assert 0 < found["seconds_without_prepare"] <= found["seconds_per_step"]


@pytest.mark.slow
def test_everything_in_one_report(capfd):
    found = figures(capfd, "all", TINY, "train.device=cpu", "--rounds", 1)
    assert found.keys() == {"gemm", "step", "data"}
    assert found["gemm"].keys() >= FACTS
    assert found["gemm"]["gemm_gflops_best"] >= found["gemm"]["gemm_gflops_median"] > 0
    assert found["gemm"]["memory_gb_per_second"] > 0
    assert found["data"]["ratios"]["read_crc_to_webdataset"] > 0


@pytest.mark.slow
def test_two_processes_beside_one(capfd):
    words = ["ddp", TINY, "train.device=cpu", "--procs", 2, "--batch", 8, "--rounds", 2]
    found = figures(capfd, *words)
    assert found["processes"] == 2
    assert found["scaling"] == pytest.approx(found["samples_per_second"] / found["one_process"])


def test_a_batch_that_cannot_be_shared_is_refused(capfd):
    assert main(["bench", "ddp", TINY, "--procs", "3", "--batch", "8"]) == 2
    assert "--procs 3" in capfd.readouterr().err
