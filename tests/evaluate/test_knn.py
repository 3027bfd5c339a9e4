from __future__ import annotations

import torch
from sklearn.neighbors import KNeighborsClassifier

from mimsuite.evaluate.probes.knn import knn_predict


def around(*degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_one_neighbour_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    x, q = torch.randn(200, 8, generator=generator), torch.randn(50, 8, generator=generator)
    y = torch.randint(4, (200,), generator=generator)
    expected = KNeighborsClassifier(1, metric="cosine").fit(x, y).predict(q)
    assert knn_predict(x, y, q, 1, 4).tolist() == expected.tolist()


def test_majority_wins_over_the_nearest() -> None:
    labels = torch.tensor([0, 1, 1])
    assert knn_predict(around(1, 10, 12), labels, around(0), 3, 2).tolist() == [1]


def test_tie_goes_to_the_class_of_the_most_similar_neighbour() -> None:
    labels = torch.tensor([2, 0, 2, 0])
    for degrees, winner in [((1, 10, 20, 12), 2), ((10, 1, 12, 20), 0)]:
        assert knn_predict(around(*degrees), labels, around(0), 4, 3).tolist() == [winner]


def test_tie_among_opposite_directions() -> None:
    labels = torch.tensor([0, 1])
    assert knn_predict(around(170, 130), labels, around(0), 2, 3).tolist() == [1]


def test_only_directions_count_and_few_samples_all_vote() -> None:
    labels = torch.tensor([0, 1, 1])
    table = around(1, 60, 70) * torch.tensor([[0.01], [5.0], [100.0]])
    assert knn_predict(table, labels, around(0) * 7, 1, 2).tolist() == [0]
    assert knn_predict(table, labels, around(0), 50, 2).tolist() == [1]
