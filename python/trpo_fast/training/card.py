"""A model card, and a folder that a hub of models takes: what others need to use and judge a policy."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from .. import runtime
from .._version import __version__
from ..export import FILES
from ..logging import write_atomically

if TYPE_CHECKING:
    from .agent import OnPolicyAgent
    from .episodes import EvaluationResult

__all__ = ["model_card", "write_model_folder"]

_LIMITS = """## Limits

The policy has seen this environment and no other. Nothing is known of observations far from those of its
training; normalised ones are clipped. Its return says nothing of safety.
"""


def model_card(
    agent: OnPolicyAgent[Any],
    evaluation: EvaluationResult | None = None,
    *,
    licence: str = "mit",
    forms: Sequence[str] = (),
) -> str:
    """Markdown with a head of metadata, as hubs of models read it.

    Parameters
    ----------
    agent
        The agent.
    evaluation
        What an evaluation gave; None leaves results out.
    licence
        Identifier of the policy's licence.
    forms
        Exported forms that stand beside it.
    """
    name = type(agent).__name__
    head: dict[str, Any] = {
        "library_name": "trpo_fast",
        "license": licence,
        "tags": ["reinforcement-learning", "deep-reinforcement-learning", name, agent.env_name],
    }
    if evaluation is not None:
        value = f"{evaluation.mean_return:.2f} +/- {evaluation.std_return:.2f}"
        head["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
                        "dataset": {"name": agent.env_name, "type": agent.env_name},
                        "metrics": [
                            {"type": "mean_reward", "name": "mean_reward", "value": value,
                             "verified": False}
                        ],
                    }
                ],
            }
        ]  # fmt: skip
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\n{_body(agent, evaluation, forms)}"


def _body(
    agent: OnPolicyAgent[Any], evaluation: EvaluationResult | None, forms: Sequence[str]
) -> str:
    policy, adapter = agent.policy, agent.acting.adapter
    layers = " → ".join(
        map(str, (policy.obs_dim, *policy.hidden_sizes, policy.distribution.n_outputs))
    )
    normalizer = "running mean and deviation of training, inside" if policy.normalizer else "none"
    scaling = (
        "from [-1, 1] to the bounds of the space, inside" if adapter.scaling else "none, clipped"
    )
    rows = [
        ("environment", f"`{agent.env_name}`"),
        ("method", type(agent).__name__),
        ("environment steps", f"{agent.timesteps:,}"),
        ("seed", agent.config.seed),
        ("observation space", f"`{agent.acting.encoder.space}`"),
        ("action space", f"`{adapter.space}`"),
        ("network", f"{layers}, {policy.activation}, {policy.n_parameters:,} parameters"),
        ("distribution", policy.distribution.kind.replace("_", " ")),
        ("normalisation of observations", normalizer),
        ("scaling of actions", scaling),
        ("trained by", f"trpo_fast {__version__}, {runtime.cpu_model()}"),
    ]
    table = "\n".join(f"| {key} | {_cell(value)} |" for key, value in rows)
    parts = [
        f"# {type(agent).__name__} on {agent.env_name}\n\n| | |\n|---|---|\n{table}\n",
        "## Results\n\n" + _results(evaluation),
        _usage(agent, forms),
        "## Settings\n\n```yaml\n"
        + yaml.safe_dump(agent.config.to_dict(), sort_keys=False, allow_unicode=True)
        + "```\n",
        _LIMITS,
    ]
    return "\n".join(parts)


def _results(evaluation: EvaluationResult | None) -> str:
    if evaluation is None:
        return "It was not evaluated.\n"
    lines = [
        f"Return {evaluation.mean_return:.2f} ± {evaluation.std_return:.2f} (standard deviation over "
        f"{len(evaluation.returns)} whole episodes, most likely actions), length "
        f"{evaluation.mean_length:.1f}."
    ]
    lines += [f"{name}: {value:.4g}." for name, value in evaluation.metric_means.items()]
    if evaluation.n_cut:
        lines.append(f"{evaluation.cut_sentence}.")
    return " ".join(lines) + "\n"


def _usage(agent: OnPolicyAgent[Any], forms: Sequence[str]) -> str:
    text = (
        "## Use\n\n```python\nfrom trpo_fast import Policy\n\n"
        'policy = Policy.load("policy.safetensors")  # loading runs no code\n'
        "action, _ = policy.predict(observation, deterministic=True)\n```\n"
    )
    if forms:
        files = ", ".join(f"`{FILES[form]}`" for form in forms)
        text += (
            f"\nFor other programs: {files}. Each holds the whole way from observation to action.\n"
        )
    return text


def _cell(value: object) -> str:
    text = " ".join(str(value).split()).replace("|", "\\|")
    return text if len(text) <= 300 else text[:297] + "..."


def write_model_folder(
    agent: OnPolicyAgent[Any],
    folder: str | os.PathLike[str],
    evaluation: EvaluationResult | None = None,
    *,
    forms: Sequence[str] = (),
    licence: str = "mit",
) -> Path:
    """Write card, policy, settings, results and exported forms; return the folder.

    Parameters
    ----------
    agent
        The agent.
    folder
        Made where it is missing; files of these names in it are replaced.
    evaluation
        What an evaluation gave.
    forms
        Of :data:`trpo_fast.export.FILES`.
    licence
        Identifier of the policy's licence.

    Raises
    ------
    ValueError
        An unknown form.
    """
    for form in forms:
        if form not in FILES:
            raise ValueError(f"forms: expected some of {', '.join(FILES)}, got {form!r:.80}")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    policy = agent.frozen_policy()
    policy.save(path / "policy.safetensors")
    for form in forms:
        policy.export(path / FILES[form])
    _write(path / "README.md", model_card(agent, evaluation, licence=licence, forms=forms))
    config = {"algorithm": type(agent).__name__, "env": agent.env_name, **agent.config.to_dict()}
    _write(path / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    if evaluation is not None:
        results = {
            "mean_reward": evaluation.mean_return,
            "std_reward": evaluation.std_return,
            "n_eval_episodes": len(evaluation.returns),
            "is_deterministic": True,
            "returns": np.asarray(evaluation.returns).tolist(),
            "lengths": np.asarray(evaluation.lengths).tolist(),
            **evaluation.metric_means,
        }
        _write(path / "results.json", json.dumps(results, indent=2) + "\n")
    return path


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as stream:
        stream.write(text)
