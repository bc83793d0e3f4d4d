"""Write the golden updates from the float64 reference.

python tests/promises/golden/regenerate.py            after a deliberate change of the reference
python tests/promises/golden/regenerate.py --check    only compare
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "support"))

import numpy as np  # noqa: E402

import reference  # noqa: E402

N_UPDATES = 3

# name -> (observation size, head, hidden sizes, activation, N, seed, options)
CASES: dict[str, tuple[int, reference.Head, tuple[int, ...], str, int, int, dict[str, Any]]] = {
    "gaussian": (5, reference.Head("gaussian", (2,)), (6, 4), "tanh", 200, 1, {}),
    "gaussian_backtracking": (
        3,
        reference.Head("gaussian", (1,)),
        (5,),
        "silu",
        60,
        2,
        {"max_kl": 0.5, "cg_damping": 0.001, "cg_iterations": 5},
    ),
    "state_dependent_gaussian": (
        4,
        reference.Head("state_dependent_gaussian", (2,)),
        (5,),
        "elu",
        150,
        3,
        {"cg_iterations": 6},
    ),
    "categorical": (4, reference.Head("categorical", (3,)), (8,), "gelu", 97, 4, {}),
    "multi_categorical": (
        3,
        reference.Head("multi_categorical", (2, 3)),
        (4, 3, 3),
        "relu",
        120,
        5,
        {"standardize_advantages": False, "cg_iterations": 6},
    ),
    "bernoulli_linear": (6, reference.Head("bernoulli", (3,)), (), "identity", 96, 6, {}),
}


def options_of(name: str) -> dict[str, Any]:
    return {"max_kl": 0.01, "cg_iterations": 10, "cg_damping": 0.1, "cg_tolerance": 1e-10} | (
        CASES[name][-1]
    )


def problems(name: str) -> list[reference.Problem]:
    """One batch for every update; only the first one's parameters are used."""
    obs_dim, head, hidden, activation, n, seed, _ = CASES[name]
    policy = reference.Policy(obs_dim, head, hidden, activation)
    # actions come from the initial policy in every batch: fixed data, whatever the updates do
    first = reference.make_problem(policy, n, seed)
    rest = [reference.make_problem(policy, n, seed + 100 * i) for i in range(1, N_UPDATES)]
    return [first, *(dataclasses.replace(p, parameters=first.parameters) for p in rest)]


def compute(name: str) -> dict[str, Any]:
    """What the reference makes of one case."""
    batches, options = problems(name), options_of(name)
    parameters, updates = batches[0].parameters, []
    for p in batches:
        update = reference.trpo_update(
            p.policy, parameters, p.obs, p.actions, p.advantages, **options
        )
        parameters = update.parameters
        assert update.cg is not None
        updates.append(
            {
                "status": update.status,
                "backtracks": update.backtracks,
                "cg_iterations": update.cg.iterations,
                "kl": update.kl,
                "kl_predicted": update.kl_predicted,
                "kl_max": update.kl_max,
                "surrogate_gain": update.surrogate_gain,
                "surrogate_gain_predicted": update.surrogate_gain_predicted,
                "entropy_before": update.entropy_before,
                "entropy": update.entropy,
                "gradient_norm": float(np.linalg.norm(update.gradient)),
                "parameters": parameters.tolist(),
            }
        )
    policy = batches[0].policy
    return {
        "distribution": {"kind": policy.head.kind, "sizes": list(policy.head.sizes)},
        "obs_dim": policy.obs_dim,
        "hidden_sizes": list(policy.hidden_sizes),
        "activation": policy.activation,
        "n": len(batches[0].obs),
        "options": options,
        "initial_parameters": batches[0].parameters.tolist(),
        "updates": updates,
    }


def largest_difference(a: Any, b: Any) -> float:
    """Largest relative difference of two such structures; infinity where they are not alike."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((largest_difference(a[k], b[k]) for k in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max((largest_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) / max(abs(a), abs(b), 1e-3)
    return 0.0 if a == b else float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    worst = 0.0
    for name in CASES:
        path, data = FOLDER / f"{name}.json", compute(name)
        if check:
            stored = json.loads(path.read_text(encoding="utf-8"))
            difference = largest_difference(stored, json.loads(json.dumps(data)))
            worst = max(worst, difference)
            print(f"{path.name}: largest relative difference {difference:.1e}")
        else:
            path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            print(f"{path.name}: {[u['status'] for u in data['updates']]}")
    return 1 if worst > 1e-9 else 0


if __name__ == "__main__":
    sys.exit(main())
