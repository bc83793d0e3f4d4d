"""Finite Markov decision processes: the arrays, their checks, and three families of examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_SUM_TOLERANCE = 1e-9  # how far a row of probabilities may be from 1


@dataclass(frozen=True, kw_only=True, eq=False)
class FiniteMDP:
    """A discounted decision process with S states and A actions.

    The arrays are copied to read-only float64 and checked once.

    Raises
    ------
    ValueError
        where a shape disagrees, a number is not finite, a row is no probability distribution, or
        gamma lies outside [0, 1); one sentence that names the entry.
    """

    transitions: FloatArray
    """P(s'|s, a), shape (S, A, S)."""
    rewards: FloatArray
    """R(s, a), the expected reward of a step, shape (S, A)."""
    initial_distribution: FloatArray
    """rho_0(s), shape (S,)."""
    gamma: float
    """Discount, in [0, 1): the visitation's geometric series must converge."""

    def __post_init__(self) -> None:
        for name in ("transitions", "rewards", "initial_distribution"):
            object.__setattr__(self, name, _read_only(name, getattr(self, name)))
        P = self.transitions
        if P.ndim != 3 or P.shape[0] != P.shape[2] or 0 in P.shape:
            raise ValueError(
                f"transitions: expected shape (S, A, S) with S, A >= 1, got {P.shape}; "
                "the entry [s, a, s'] is the probability of s' after action a in state s"
            )
        n_states, n_actions, _ = P.shape
        if self.rewards.shape != (n_states, n_actions):
            remedy = (
                "; average a reward that depends on s' over the transitions first"
                if self.rewards.ndim == 3
                else ""
            )
            raise ValueError(
                f"rewards: expected shape (S, A) = {(n_states, n_actions)} as in transitions, "
                f"got {self.rewards.shape}{remedy}"
            )
        if self.initial_distribution.shape != (n_states,):
            raise ValueError(
                f"initial_distribution: expected shape (S,) = {(n_states,)} as in transitions, "
                f"got {self.initial_distribution.shape}"
            )
        _check_distributions("transitions", P, ("s", "a"))
        _check_distributions("initial_distribution", self.initial_distribution, ())
        if not 0.0 <= self.gamma < 1.0:
            raise ValueError(
                f"gamma: expected a number in [0, 1), got {self.gamma}; "
                "an undiscounted task needs gamma just below 1 here"
            )

    @property
    def n_states(self) -> int:
        """S."""
        return int(self.rewards.shape[0])

    @property
    def n_actions(self) -> int:
        """A."""
        return int(self.rewards.shape[1])

    def uniform_policy(self) -> FloatArray:
        """Return pi(a|s) = 1/A, shape (S, A)."""
        return np.full(self.rewards.shape, 1.0 / self.n_actions)

    def check_policy(self, policy: npt.ArrayLike, name: str = "policy") -> FloatArray:
        """Return the policy as float64 of shape (S, A), or raise ValueError with one sentence.

        Parameters
        ----------
        policy
            pi(a|s), (S, A), rows that sum to 1.
        name
            How errors call the policy.
        """
        pi = np.asarray(policy, np.float64)
        if pi.shape != self.rewards.shape:
            raise ValueError(
                f"{name}: expected probabilities of shape (S, A) = {self.rewards.shape}, "
                f"got shape {pi.shape}"
            )
        _check_distributions(name, pi, ("s",))
        return pi


# ---- examples


def random_mdp(
    n_states: int = 10,
    n_actions: int = 4,
    *,
    branching: int = 3,
    gamma: float = 0.9,
    seed: int | np.random.Generator = 0,
) -> FiniteMDP:
    """Draw a Garnet process (Archibald, McKinnon and Thomas 1995).

    Every (s, a) leads to ``branching`` different states, drawn uniformly; their probabilities are
    the pieces of the unit interval cut at uniform points. R(s, a) is standard normal. rho_0 is
    uniform over the simplex.

    Parameters
    ----------
    n_states
        S, >= 1.
    n_actions
        A, >= 1.
    branching
        States that an action may lead to, in [1, S].
    gamma
        Discount, in [0, 1).
    seed
        Of the random numbers.
    """
    if not 1 <= branching <= n_states:
        raise ValueError(
            f"branching: expected between 1 and n_states = {n_states} successors, got {branching}"
        )
    rng = np.random.default_rng(seed)
    transitions = np.zeros((n_states, n_actions, n_states))
    for s in range(n_states):
        for a in range(n_actions):
            cuts = np.sort(rng.uniform(size=branching - 1))
            pieces = np.diff(np.concatenate([[0.0], cuts, [1.0]]))
            transitions[s, a, rng.choice(n_states, branching, replace=False)] = pieces
    return FiniteMDP(
        transitions=transitions,
        rewards=rng.standard_normal((n_states, n_actions)),
        initial_distribution=rng.dirichlet(np.ones(n_states)),
        gamma=gamma,
    )


def chain_mdp(n_states: int = 8, *, slip: float = 0.0, gamma: float = 0.9) -> FiniteMDP:
    """Return a corridor with the reward at its far end, started at the near one.

    Actions: 0 left, 1 right; with probability ``slip`` the other one happens. Every step taken
    in the last state pays 1, every other 0. A random walk rarely gets there: the example with
    which Kakade and Langford (2002, section 3) show why plain policy gradients stall.

    Parameters
    ----------
    n_states
        S, >= 1.
    slip
        Probability in [0, 1] that an action goes another way.
    gamma
        Discount, in [0, 1).
    """
    _check_slip(slip)
    place = np.arange(n_states)
    moves = np.stack([np.maximum(place - 1, 0), np.minimum(place + 1, n_states - 1)], axis=1)
    rewards = np.zeros((n_states, 2))
    rewards[-1] = 1.0
    return FiniteMDP(
        transitions=_slippery(moves, slip),
        rewards=rewards,
        initial_distribution=np.eye(n_states)[0],
        gamma=gamma,
    )


def gridworld_mdp(
    layout: Sequence[str] = ("...G", ".#.X", "S..."), *, slip: float = 0.2, gamma: float = 0.9
) -> FiniteMDP:
    """Return a grid drawn with characters, one string a row.

    ``S`` start (several: uniform), ``.`` free, ``#`` wall, ``G`` goal and ``X`` pit: the step out
    of these two pays +1 and -1 and ends in an absorbing state without reward, the last state.
    Other steps pay 0. Actions: 0 up, 1 right, 2 down, 3 left; with probability ``slip`` one of
    the three others happens; a move into a wall or out of the grid stays. States are the
    cells other than walls, row by row.

    Parameters
    ----------
    layout
        Rows of the grid as texts.
    slip
        Probability in [0, 1] that an action goes another way.
    gamma
        Discount, in [0, 1).
    """
    _check_slip(slip)
    cells = [(r, c) for r, row in enumerate(layout) for c, mark in enumerate(row) if mark != "#"]
    marks = np.array([layout[r][c] for r, c in cells])
    unknown = sorted(set(marks) - set("S.GX"))
    if unknown:
        raise ValueError(f"layout: expected the characters S . # G X, got {unknown[0]!r}")
    if "S" not in marks:
        raise ValueError("layout: expected at least one start cell S, got none")
    number = {cell: s for s, cell in enumerate(cells)}
    end = len(cells)
    moves = np.full((end + 1, 4), end)
    for s, (r, c) in enumerate(cells):
        if marks[s] in "S.":
            around = ((r - 1, c), (r, c + 1), (r + 1, c), (r, c - 1))
            moves[s] = [number.get(cell, s) for cell in around]
    pay = np.select([marks == "G", marks == "X"], [1.0, -1.0], 0.0)
    starts = np.append(marks == "S", False).astype(np.float64)
    return FiniteMDP(
        transitions=_slippery(moves, slip),
        rewards=np.repeat(np.append(pay, 0.0)[:, None], 4, axis=1),
        initial_distribution=starts / starts.sum(),
        gamma=gamma,
    )


# ---- policies


def softmax(logits: npt.ArrayLike) -> FloatArray:
    """Return pi(a|s) = exp(theta(s, a)) / sum_b exp(theta(s, b)) for logits of shape (..., A).

    Parameters
    ----------
    logits
        (..., A), any finite numbers; -inf gives probability 0.
    """
    theta = np.asarray(logits, np.float64)
    weights = np.exp(theta - theta.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def greedy_policy(scores: npt.ArrayLike) -> FloatArray:
    """Return the deterministic policy argmax_a scores(s, a); the first action wins a tie.

    Parameters
    ----------
    scores
        (S, A); the largest of each row wins, the first one where several are equal.
    """
    table = np.asarray(scores, np.float64)
    return np.asarray(np.eye(table.shape[-1])[table.argmax(axis=-1)], np.float64)


# ---- helpers


def _slippery(moves: npt.NDArray[np.intp], slip: float) -> FloatArray:
    """P(s'|s, a) when the move moves[s, a] succeeds with 1 - slip, else one of the others."""
    n_states, n_actions = moves.shape
    happens = np.full((n_actions, n_actions), slip / (n_actions - 1))
    np.fill_diagonal(happens, 1.0 - slip)
    landing = np.eye(n_states)[moves]  # [s, b, s']
    return np.asarray(np.einsum("ab,sbt->sat", happens, landing), np.float64)


def _check_slip(slip: float) -> None:
    if not 0.0 <= slip <= 1.0:
        raise ValueError(f"slip: expected a probability in [0, 1], got {slip}")


def _read_only(name: str, values: npt.ArrayLike) -> FloatArray:
    array = np.array(values, np.float64)
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}: expected finite numbers, got {array[where]} at {where}")
    array.flags.writeable = False
    return array


def _check_distributions(name: str, rows: FloatArray, axes: tuple[str, ...]) -> None:
    """Raise unless every row along the last axis is a probability distribution."""
    sums = rows.sum(axis=-1)
    good = (rows >= 0.0).all(axis=-1) & (np.abs(sums - 1.0) <= _SUM_TOLERANCE)  # false for NaN
    if good.all():
        return
    where = tuple(int(i) for i in np.argwhere(~good)[0]) if axes else ()
    place = " at " + ", ".join(f"{x}={i}" for x, i in zip(axes, where, strict=True)) if axes else ""
    row = rows[where]
    problem = f"the sum {sums[where]:.12g}" if (row >= 0.0).all() else f"the entry {row.min():.6g}"
    raise ValueError(
        f"{name}: expected probabilities >= 0 that sum to 1, got {problem}{place}; "
        "divide each row by its sum"
    )
