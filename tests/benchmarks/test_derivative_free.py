"""The searches without derivatives, which the other methods are compared with."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.learning import derivative_free


@pytest.mark.parametrize("method", ["cem", "cma-es"])
@pytest.mark.parametrize(("dim", "generations"), [(5, 60), (600, 400)])
def test_searches_find_the_top_of_a_hill(method: str, dim: int, generations: int) -> None:
    if method == "cma-es":
        pytest.importorskip("cmaes")
    top = np.linspace(-1.0, 1.0, dim)
    search = derivative_free.METHODS[method](np.zeros(dim), seed=1)
    start = float(np.sum(top**2))
    for _ in range(generations):
        thetas = search.ask()
        assert thetas.shape[1] == dim
        search.tell(thetas, -np.sum((thetas - top) ** 2, axis=1))
    assert np.sum((search.mean - top) ** 2) < (0.02 if dim == 5 else 0.8) * start


def test_a_search_counts_every_step_of_whole_episodes() -> None:
    run = derivative_free.search(
        "cem", "CartPole-v1", timesteps=500, hidden_sizes=(), evaluation_episodes=3
    )
    assert run.timesteps[-1] >= 500
    assert run.timesteps == sorted(run.timesteps)
    # CartPole pays 1 a step: the returns of all episodes are the steps taken
    total = sum(20 * mean for mean in run.mean_returns)
    assert total == pytest.approx(run.timesteps[-1])
    assert run.final_returns.shape == (3,)
    with pytest.raises(ValueError, match="method: expected one of cem, cma-es"):
        derivative_free.search("annealing", "CartPole-v1", timesteps=1)
