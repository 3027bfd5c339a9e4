"""Corrupt samples are reported once each, whichever ranks meet them."""

from __future__ import annotations

import json
from typing import Any

from mimsuite.cluster.peers import Peers
from mimsuite.data.damage import Damage
from mimsuite.train.damage_report import DamageReport


class Three(Peers):
    """The first of three ranks; the other two send what is in ``sent``."""

    world = 3

    def __init__(self) -> None:
        self.sent = ["", ""]

    def gather_texts(self, text: str, *, patient: bool = False) -> list[str]:
        return [text, *self.sent]


def test_a_sample_that_several_ranks_meet_is_one() -> None:
    peers, events, said = Three(), list[tuple[Any, ...]](), list[str]()
    report = DamageReport(peers, lambda *name, key, **_: events.append((*name, key)), said.append)
    a, b = (Damage(key, "train-0.tar", "decode", "no image") for key in "ab")
    report.add([a], 3)
    peers.sent = [json.dumps([vars(b)]), ""]
    report.collect(10)
    peers.sent = [json.dumps([vars(a)]), json.dumps([vars(b)])]  # in the next epoch
    report.collect(20)
    report.sum_up()
    assert events == [("bad_sample", 3, "a"), ("bad_sample", 10, "b")]
    assert said[-1] == "2 corrupt samples were replaced by another; see events.jsonl"
