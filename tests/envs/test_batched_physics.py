"""The physics of batched worlds against formulas written out for one body."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from soo_marl.envs.batched_physics import as_planes, as_points, as_rows, limit_speed, push, wall_force


@pytest.mark.parametrize("distance", [0.2, 0.96, 1.0, 1.3])
@pytest.mark.parametrize("margin", [1e-3, 0.05])
def test_walls_push_as_written_out_also_where_both_are_felt(distance: float, margin: float) -> None:
    position = np.linspace(-1.0, 1.0, 2001)

    def penetration(wall_distance: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.logaddexp(0.0, (distance - wall_distance) / margin) * margin)

    expected = 100.0 * (penetration(position + 1.0) - penetration(1.0 - position))
    found = wall_force(torch.tensor(position), distance, stiffness=100.0, margin=margin)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert abs(found[1000]) < 1e-12


def test_speed_is_limited_without_turning_and_rest_stays_rest() -> None:
    velocity = torch.tensor([[3.0, 0.3, 0.0], [-4.0, 0.4, 0.0]])
    limit_speed(velocity, 1.0)
    torch.testing.assert_close(velocity, torch.tensor([[0.6, 0.3, 0.0], [-0.8, 0.4, 0.0]]))


def test_pushes_of_all_moves() -> None:
    moves = torch.eye(5)[None, None]
    assert push(moves, continuous=False)[0, :, 0].T.tolist() == [[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]]


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 3, 2, 2), (2, 1, 3, 2)])
def test_planes_and_back(shape: tuple[int, ...]) -> None:
    points = torch.rand(shape)
    planes = as_planes(points)
    assert planes.shape == (shape[2], 2, *shape[:2]) and planes.is_contiguous()
    for found, expected in ((as_points(planes), points), (as_rows(planes), points.flatten(2))):
        assert torch.equal(found, expected) and found.is_contiguous()
        assert found.data_ptr() != planes.data_ptr()
