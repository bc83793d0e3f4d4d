# %% [markdown]
"""The picture that every lecture on TRPO shows, computed instead of sketched.

    python benchmarks/pictures/lecture_picture.py --out lecture_picture.png

A process small enough to be solved exactly has a return J(theta) for every parameter theta of its
policy. Around one of them, theta_i, there are two more functions:

- the surrogate L, which counts the advantages of pi_i under pi_i's own state visitation; it has
  the value and the slope of J at theta_i;
- the lower bound M = L - C max_s KL(pi_i || pi)(s) with C = 4 eps gamma/(1 - gamma)^2, which
  touches J at theta_i and lies below it everywhere (Schulman et al. 2015, theorem 1).

Maximising M can therefore not lower J, however often it is repeated. The first panel draws that.
The second one draws the same process from further away, and what TRPO does instead. The third
compares the algorithms on a larger process. Nothing is sampled: every point is exact. The file is
divided into cells that run one after the other in a notebook.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trpo_fast import tabular

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

# Okabe and Ito's palette, told apart with any kind of colour vision
BLACK, BLUE, VERMILION, GREEN, PURPLE = "#222222", "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY = "#666666"
DOT: dict[str, Any] = {"ls": "", "marker": "o", "mec": "white", "mew": 1.3, "zorder": 5}

# %% [markdown]
# Two rooms and one parameter. In room 0 a bold move pays 1 and leads on to room 1, for good; a
# careful one pays nothing and stays. In room 1 careful pays 1.5 and bold costs 1. The policy has
# no eyes for rooms: it is bold with probability 1/(1 + exp(-theta)) in both. A timid policy sees
# mostly room 0, where boldness is an advantage, and its surrogate promises more the bolder it gets.
# But boldness leads to room 1.


# %%
def two_rooms(gamma: float = 0.3) -> tabular.FiniteMDP:
    """Return the process above: states 0 and 1, actions 0 careful and 1 bold."""
    return tabular.FiniteMDP(
        transitions=np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]),
        rewards=np.array([[0.0, 1.0], [1.5, -1.0]]),
        initial_distribution=np.array([1.0, 0.0]),
        gamma=gamma,
    )


def policy(theta: float) -> FloatArray:
    """Return pi_theta(a|s), shape (2, 2), the same in both rooms."""
    return tabular.softmax([[0.0, theta], [0.0, theta]])


@dataclass(frozen=True)
class Curves:
    """Functions of theta as seen from theta_i; arrays over one grid."""

    theta: FloatArray
    J: FloatArray
    L: FloatArray
    M: FloatArray
    mean_kl: FloatArray


def curves(mdp: tabular.FiniteMDP, theta_i: float, theta: FloatArray) -> Curves:
    """Evaluate J, L, M and the mean KL exactly at every theta."""
    old = tabular.evaluate(mdp, policy(theta_i))
    policies = [policy(float(t)) for t in theta]
    return Curves(
        theta=theta,
        J=np.array([tabular.evaluate(mdp, pi).J for pi in policies]),
        L=np.array([tabular.surrogate(old, pi) for pi in policies]),
        M=np.array([tabular.lower_bound(old, pi) for pi in policies]),
        mean_kl=np.array([tabular.mean_kl(old, pi) for pi in policies]),
    )


def return_of(mdp: tabular.FiniteMDP, theta: float) -> float:
    """Return J(theta)."""
    return tabular.evaluate(mdp, policy(theta)).J


def climb(mdp: tabular.FiniteMDP, theta: float, steps: int) -> list[float]:
    """Maximise M again and again over the one parameter; return theta_0 ... theta_steps."""
    path = [theta]
    for _ in range(steps):
        grid = path[-1] + np.linspace(-1.0, 1.0, 4001)
        path.append(float(grid[curves(mdp, path[-1], grid).M.argmax()]))
    return path


# %% [markdown]
# First panel: the surrogate and the bound of the first step, and the bounds of the steps that
# follow, each touching J where the last one had its maximum.


# %%
def draw_bound(axes: Axes, mdp: tabular.FiniteMDP, start: float) -> None:
    """Draw J, L, M and the climb along the maxima of M."""
    path = climb(mdp, start, 7)
    heights = [return_of(mdp, theta) for theta in path]
    at = curves(mdp, start, np.linspace(start - 0.55, 1.05, 500))
    low, high = heights[0] - 0.115, at.J.max() + 0.075
    axes.set(xlim=(at.theta[0], at.theta[-1]), ylim=(low, high))

    for theta in path[1:-1]:
        bound = curves(mdp, theta, at.theta)
        axes.plot(at.theta, bound.M, color=VERMILION, lw=1.0, alpha=0.38)
    axes.plot(at.theta, at.L, color=BLUE, lw=2.4)
    axes.plot(at.theta, at.M, color=VERMILION, lw=2.6)
    axes.plot(at.theta, at.J, color=BLACK, lw=2.8)
    for theta, height in zip(path[:2], heights[:2], strict=True):
        axes.plot([theta, theta], [low, height], color=GREY, lw=1.0, ls=(0, (1, 2)))
    axes.plot(path[1:-1], heights[1:-1], color=BLACK, ms=6.5, **DOT)
    axes.plot(path[:1], heights[:1], color=BLACK, ms=9, **DOT)
    promised = float(np.nanmax(at.M))
    axes.plot([path[1]], [promised], color=VERMILION, ms=8, **DOT)

    note = partial(axes.annotate, textcoords="offset points", fontsize=12)
    note(
        r"surrogate  $L_{\theta_i}(\theta)$", (-0.33, np.interp(-0.33, at.theta, at.L)),
        (-10, 4), color=BLUE, ha="right", va="bottom",
    )  # fmt: skip
    note(
        r"return  $J(\theta)$", (0.78, np.interp(0.78, at.theta, at.J)),
        (0, 9), color=BLACK, ha="center", va="bottom",
    )  # fmt: skip
    note(
        "lower bound\n" r"$M = L_{\theta_i} - C\,\max_s D_{\mathrm{KL}}(\pi_i\,\|\,\pi)$",
        (-0.39, np.interp(-0.39, at.theta, at.M)), (14, 0), color=VERMILION, ha="left", va="center",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 2.5}, zorder=4,
    )  # fmt: skip
    note(
        "all three touch,\nwith one slope", (path[0], heights[0]),
        (-12, 26), color=GREY, ha="right", va="bottom", fontsize=10,
        arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.8, "shrinkB": 6},
    )  # fmt: skip
    note(
        "the next bounds", (path[4], heights[4]),
        (50, -40), color=VERMILION, ha="left", va="center", fontsize=10, alpha=0.8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 1.5},
    )  # fmt: skip
    axes.set_xticks(path[:2], [r"$\theta_i$", r"$\theta_{i+1} = \arg\max M$"])
    axes.get_xticklabels()[1].set_horizontalalignment("left")
    axes.set_title("Climb a curve that lies below the return and touches it")
    axes.set_ylabel("expected discounted return")


# %% [markdown]
# Second panel: from further away the surrogate promises what no policy can keep. The bound is
# right, but reaches only a little way; TRPO goes as far as a mean KL of delta.


# %%
def draw_trust_region(axes: Axes, mdp: tabular.FiniteMDP, start: float, delta: float) -> None:
    """Draw the same curves over a wide range, with the trust region and the step inside it."""
    at = curves(mdp, start, np.linspace(start - 2.5, 6.0, 800))
    inside = at.mean_kl <= delta
    best = int(np.where(inside, at.L, -np.inf).argmax())
    safe = int(at.M.argmax())
    low, high = at.J.min() - 0.1, at.L.max() + 0.1
    axes.set(xlim=(at.theta[0], at.theta[-1]), ylim=(low, high))

    axes.axvspan(*at.theta[inside][[0, -1]], color=GREEN, alpha=0.12, lw=0)
    axes.plot(at.theta, at.L, color=BLUE, lw=2.0)
    axes.plot(at.theta, at.M, color=VERMILION, lw=2.0)
    axes.plot(at.theta, at.J, color=BLACK, lw=2.2)
    axes.plot([start], [return_of(mdp, start)], color=BLACK, ms=7, **DOT)
    axes.plot([at.theta[safe]], [at.M[safe]], color=VERMILION, ms=6.5, **DOT)
    axes.plot([at.theta[best]], [at.J[best]], color=GREEN, ms=7.5, **DOT)

    axes.text(5.9, at.L[-1] - 0.05, "$L$", color=BLUE, ha="right", va="top", fontsize=11)
    axes.text(5.9, at.J[-1] + 0.03, "$J$", color=BLACK, ha="right", va="bottom", fontsize=11)
    drop = int(np.abs(at.M - (low + 0.12)).argmin())
    axes.text(at.theta[drop] + 0.25, low + 0.07, "$M$", color=VERMILION, fontsize=11)
    axes.annotate(
        f"mean KL\n$\\leq {delta:g}$", (at.theta[inside][0], 0.96),
        (-6, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
        color=GREEN, ha="right", va="top", fontsize=10,
    )  # fmt: skip
    axes.set_xticks([start, at.theta[best]], [r"$\theta_i$", r"$\theta_{i+1}$"])
    axes.set_title("Or trust the surrogate within a radius")


# %% [markdown]
# Third panel: the algorithms on a random process of 20 states, from the uniform policy.


# %%
def draw_iterations(axes: Axes, delta: float, iterations: int, gamma: float = 0.9) -> None:
    """Draw how much of the way to the optimum each algorithm has made."""
    mdp = tabular.random_mdp(20, 4, gamma=gamma, seed=4)
    first, best = tabular.evaluate(mdp, mdp.uniform_policy()).J, tabular.policy_iteration(mdp).J
    # name, algorithm, colour, height of the label, its side
    runs: Sequence[tuple[str, Callable[..., tabular.Solution], str, float, str]] = (
        ("policy iteration", tabular.policy_iteration, GREY, 1.0, "above"),
        (f"TRPO, $\\delta = {delta:g}$", partial(tabular.trpo, delta=delta), GREEN, 0.45, "right"),
        (
            "conservative\npolicy iteration",
            tabular.conservative_policy_iteration,
            PURPLE,
            0.62,
            "left",
        ),
        ("algorithm 1", tabular.monotonic_improvement, VERMILION, 0.45, "right"),
    )
    offsets = {"above": (8, 13), "left": (-9, 0), "right": (9, 0)}
    axes.set_xscale("log")
    for name, solve, colour, height, side in runs:
        history = solve(mdp, iterations=iterations).history
        made = (np.array([first] + [step.J for step in history]) - first) / (best - first)
        made = np.append(made, np.full(iterations + 1 - len(made), made[-1]))
        i = np.arange(1, iterations + 1)
        axes.plot(i, made[1:], color=colour, lw=2.0)
        place = int(np.abs(made[1:] - height).argmin())
        axes.annotate(
            name, (i[place], made[1:][place]), offsets[side], textcoords="offset points",
            color=colour, fontsize=10, va="center", ha="right" if side == "left" else "left",
        )  # fmt: skip
    axes.set(xlim=(1, iterations), ylim=(0.0, 1.14))
    axes.set_yticks([0.0, 0.5, 1.0], ["start", "", "optimum"])
    axes.set_xlabel("iterations")
    axes.set_title(f"What caution costs  ($\\gamma = {gamma:g}$)")


# %% [markdown]
# The three panels on one page.


# %%
def draw(delta: float = 0.05, iterations: int = 1000) -> Figure:
    """Return the figure; delta is in nats, iterations are those of the third panel."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 10.5, "axes.titlesize": 12.5, "axes.titlelocation": "left",
        "axes.titlepad": 10.0, "axes.titleweight": "bold", "axes.edgecolor": GREY,
        "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
        "axes.spines.top": False, "axes.spines.right": False, "mathtext.fontset": "cm",
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(13.0, 6.6), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1.75, 1.0), hspace=0.06, wspace=0.04)
        mdp, theta_i = two_rooms(), -1.0  # bold with probability 0.27
        draw_bound(figure.add_subplot(grid[:, 0]), mdp, theta_i)
        draw_trust_region(figure.add_subplot(grid[0, 1]), mdp, theta_i, delta)
        draw_iterations(figure.add_subplot(grid[1, 1]), delta, iterations)
    return figure


def main() -> None:
    """Write the picture and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("lecture_picture.png"))
    parser.add_argument("--delta", type=float, default=0.05, help="mean KL in nats (default 0.05)")
    parser.add_argument("--iterations", type=int, default=1000, help="of the third panel")
    parser.add_argument("--dpi", type=int, default=160)
    arguments = parser.parse_args()
    figure = draw(arguments.delta, arguments.iterations)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=arguments.dpi)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
