"""Configurations that emulate other TRPO implementations, for like-for-like comparison.

Each preset writes down the settings that a project documents, with the file they come from, and
says in ``differences`` what that project does that no field of :class:`TRPOConfig` expresses.
What holds for all of them: every step of ours is inside the trust region and improves the
surrogate, truncated episodes are bootstrapped from their true final observation, normalisation is
frozen while a batch is collected, and networks start from orthogonal matrices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .config import ConfigError, TRPOConfig, did_you_mean


@dataclass(frozen=True, kw_only=True)
class PresetInfo:
    """A named set of settings: its source, its values, and where it stops short."""

    name: str
    source: str
    """Project and file that document the settings."""
    settings: Mapping[str, object]
    """Fields of TRPOConfig; the others keep their defaults."""
    by_environment: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Further fields for single environments, by Gymnasium name without version."""
    differences: tuple[str, ...] = ()
    """What the project does that no field here expresses."""

    def settings_for(self, env: str | None = None) -> dict[str, object]:
        """Return the fields of this preset for an environment id such as "HalfCheetah-v5".

        Parameters
        ----------
        env
            Gymnasium id; None for no particular one.
        """
        name = "" if env is None else _base_name(env)
        return {**self.settings, **self.by_environment.get(name, {})}


def preset(name: str, *, env: str | None = None, **overrides: object) -> TRPOConfig:
    """Return the configuration of a preset, with the given fields changed.

    Parameters
    ----------
    name
        One of :data:`PRESETS`.
    env
        Gymnasium id for which the preset may hold its own values (HalfCheetah under rl-zoo).
    **overrides
        Fields of :class:`TRPOConfig`; they win over the preset.

    Raises
    ------
    ConfigError
        on an unknown preset or field, or an invalid value.
    """
    return TRPOConfig.from_dict({**find_preset(name).settings_for(env), **overrides})


def find_preset(name: str) -> PresetInfo:
    """Return the preset of this name, or raise ConfigError with the closest one.

    Parameters
    ----------
    name
        Of the preset.
    """
    if name not in PRESETS:
        remedy = did_you_mean(name, PRESETS) or "omit preset for our own defaults"
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}; {remedy}")
    return PRESETS[name]


def _base_name(env: str) -> str:
    # "module:namespace/HalfCheetah-v5" -> "HalfCheetah"
    return re.sub(r"-v\d+$", "", env.rpartition(":")[2].rpartition("/")[2])


# sb3-contrib, sb3_contrib/trpo/trpo.py (defaults of the constructor) and
# Stable-Baselines3, stable_baselines3/common/policies.py (ActorCriticPolicy)
_SB3 = PresetInfo(
    name="sb3",
    source="sb3-contrib: sb3_contrib/trpo/trpo.py, MlpPolicy of stable-baselines3",
    settings={
        "action_scaling": False,
        "n_envs": 1,  # a bare environment
        "batch_size": 2048,  # n_steps, per environment
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "hidden_sizes": (64, 64),  # net_arch, separate networks for policy and value
        "value_hidden_sizes": (64, 64),
        "activation": "tanh",
        "value_activation": "tanh",
        "hidden_gain": math.sqrt(2.0),  # ortho_init
        "policy_output_gain": 0.01,
        "value_output_gain": 1.0,
        "initial_log_std": 0.0,  # log_std_init
        "max_kl": 0.01,  # target_kl
        "kl_convention": "mean_over_action_dimensions",  # .mean() over a (batch, action) array
        "cg_iterations": 15,  # cg_max_steps
        "cg_preconditioner": "none",
        "cg_damping": 0.1,
        "cg_damping_unit": "absolute",
        "remembered_states": 0,
        "backtrack_ratio": 0.8,  # line_search_shrinking_factor
        "max_backtracks": 9,  # line_search_max_iter=10 tries, the first at full length
        "fisher_fraction": 1.0,  # sub_sampling_factor=1
        "standardize_advantages": True,  # normalize_advantage
        "value_optimizer": "adam",
        "value_learning_rate": 1e-3,  # learning_rate
        "value_learning_rate_schedule": "constant",
        "value_epochs": 10,  # n_critic_updates
        "value_minibatch_size": 128,  # batch_size
        "normalize_observations": False,
        "scale_returns": False,
    },
    differences=(
        "its KL is taken new‖old; ours is old‖new",
        "its conjugate gradient starts from random noise and stops at an absolute residual of "
        "1e-5; ours starts from zero and stops at a relative one",
    ),
)

# rl-baselines3-zoo, hyperparams/trpo.yml: "mujoco-defaults", all else as sb3-contrib
_RL_ZOO_MUJOCO = PresetInfo(
    name="rl-zoo-mujoco",
    source="rl-baselines3-zoo: hyperparams/trpo.yml, the MuJoCo entries",
    settings={
        **_SB3.settings,
        "n_envs": 2,
        "batch_size": 2048,  # n_envs=2 times n_steps=1024
        "cg_iterations": 25,  # cg_max_steps
        "cg_preconditioner": "none",
        "value_epochs": 20,  # n_critic_updates
        "normalize_observations": True,  # normalize: true wraps the environment in VecNormalize
        "observation_clip": 10.0,  # VecNormalize(clip_obs=10)
        "scale_returns": True,  # VecNormalize(norm_reward=True)
    },
    by_environment={
        "HalfCheetah": {"max_kl": 0.04},  # target_kl; 0.24 nats summed over 6 action dimensions
        "Swimmer": {"gamma": 0.9999},
    },
    differences=(
        *_SB3.differences,
        "VecNormalize divides the rewards by the deviation of the discounted return, clips them "
        "to ±10, and updates its statistics at every step; ours divides the value targets",
    ),
)

# tianshou, examples/mujoco/mujoco_trpo.py; damping and CG steps in the algorithm's npg module
_TIANSHOU = PresetInfo(
    name="tianshou",
    source="tianshou: examples/mujoco/mujoco_trpo.py",
    settings={
        "action_scaling": True,
        "n_envs": 16,  # num_train_envs
        "batch_size": 1024,  # collection_step_num_env_steps
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "hidden_sizes": (64, 64),
        "value_hidden_sizes": (64, 64),
        "activation": "tanh",
        "value_activation": "tanh",
        "hidden_gain": math.sqrt(2.0),  # orthogonal_(gain=sqrt(2)) on every linear layer ...
        "policy_output_gain": 0.01 * math.sqrt(2.0),  # ... then the last policy layer times 0.01
        "value_output_gain": math.sqrt(2.0),
        "initial_log_std": -0.5,  # sigma_param
        "max_kl": 0.01,
        "kl_convention": "sum",  # Independent(Normal, 1)
        "cg_iterations": 10,  # nsteps
        "cg_preconditioner": "none",
        "cg_damping": 0.1,
        "cg_damping_unit": "absolute",
        "remembered_states": 0,
        "backtrack_ratio": 0.8,  # backtrack_coeff
        "max_backtracks": 9,  # max_backtracks=10 tries, the first at full length
        "standardize_advantages": True,  # advantage_normalization
        "value_optimizer": "adam",
        "value_learning_rate": 1e-3,  # lr
        "value_learning_rate_schedule": "linear",  # lr_decay
        "value_epochs": 20,  # optim_critic_iters
        "value_minibatch_size": None,  # batch_size=None: one step takes the whole batch
        "normalize_observations": True,  # VectorEnvNormObs
        "observation_clip": 10.0,
        "scale_returns": True,  # return_scaling
    },
    differences=(
        "a failed line search keeps its last, too long step; ours restores the old parameters",
        "conjugate gradient stops at an absolute residual of 1e-5; ours at a relative one",
    ),
)

# openai/spinningup, spinup/algos/tf1/trpo/trpo.py (defaults of the function) and core.py
_SPINNINGUP = PresetInfo(
    name="spinningup",
    source="spinningup: spinup/algos/tf1/trpo/trpo.py and core.py",
    settings={
        "action_scaling": False,
        "n_envs": 1,  # one process
        "batch_size": 4000,  # steps_per_epoch
        "gamma": 0.99,
        "gae_lambda": 0.97,  # lam
        "hidden_sizes": (64, 64),
        "value_hidden_sizes": (64, 64),
        "activation": "tanh",
        "value_activation": "tanh",
        "hidden_gain": 1.0,  # Glorot uniform there: the same scale for square layers
        "policy_output_gain": 1.0,
        "value_output_gain": 1.0,
        "initial_log_std": -0.5,
        "max_kl": 0.01,  # delta
        "kl_convention": "sum",
        "cg_iterations": 10,  # cg_iters
        "cg_preconditioner": "none",
        "cg_tolerance": 0.0,  # its loop has no stopping test
        "cg_damping": 0.1,  # damping_coeff
        "cg_damping_unit": "absolute",
        "remembered_states": 0,
        "backtrack_ratio": 0.8,  # backtrack_coeff
        "max_backtracks": 9,  # backtrack_iters=10 tries, the first at full length
        "standardize_advantages": True,
        "value_optimizer": "adam",
        "value_learning_rate": 1e-3,  # vf_lr
        "value_epochs": 80,  # train_v_iters
        "value_minibatch_size": None,  # each step takes the whole batch
        "normalize_observations": False,
        "scale_returns": False,
    },
    differences=(
        "weights start from the Glorot uniform distribution",
        "value targets are discounted rewards-to-go, not the λ-return",
        "the environment is reset at the end of every batch; ours continues its episode",
    ),
)

# openai/baselines, baselines/trpo_mpi/defaults.py (mujoco) and trpo_mpi.py,
# baselines/common/models.py and policies.py for the networks
_BASELINES = PresetInfo(
    name="baselines",
    source="baselines: baselines/trpo_mpi/defaults.py, mujoco",
    settings={
        "action_scaling": False,
        "n_envs": 1,  # one MPI worker
        "batch_size": 1024,  # timesteps_per_batch
        "gamma": 0.99,
        "gae_lambda": 0.98,  # lam
        "hidden_sizes": (32, 32),  # mlp(num_hidden=32, num_layers=2)
        "value_hidden_sizes": (32, 32),  # value_network="copy"
        "activation": "tanh",
        "value_activation": "tanh",
        "hidden_gain": math.sqrt(2.0),  # init_scale
        "policy_output_gain": 0.01,  # pdfromlatent(init_scale=0.01)
        "value_output_gain": 1.0,
        "initial_log_std": 0.0,
        "max_kl": 0.01,
        "kl_convention": "sum",
        "cg_iterations": 10,  # cg_iters
        "cg_preconditioner": "none",
        "cg_damping": 0.1,
        "cg_damping_unit": "absolute",
        "remembered_states": 0,
        "backtrack_ratio": 0.5,  # stepsize *= .5
        "max_backtracks": 9,  # 10 tries, the first at full length
        "fisher_fraction": 0.2,  # every 5th sample
        "standardize_advantages": True,
        "value_optimizer": "adam",
        "value_learning_rate": 1e-3,  # vf_stepsize
        "value_epochs": 5,  # vf_iters
        "value_minibatch_size": 64,  # iterbatches(batch_size=64)
        "normalize_observations": True,
        "observation_clip": 5.0,  # clip_range
        "scale_returns": False,
    },
    differences=(
        "its line search accepts a KL of up to 1.5 times max_kl; ours accepts max_kl",
        "observation statistics change between sampling and update",
        "a truncated episode counts as terminated",
        "conjugate gradient stops at an absolute residual of 1e-5; ours at a relative one",
    ),
)

# Schulman et al., Trust Region Policy Optimization, arXiv:1502.05477v5: section 5 and appendix C
# (conjugate gradient, Fisher matrix on a tenth of the data), appendix E (parameters, single path)
_PAPER = PresetInfo(
    name="paper",
    source="arXiv:1502.05477, appendix E, single path",
    settings={
        "action_scaling": False,
        "n_envs": 8,  # not stated; it only shares out the batch
        "batch_size": 50_000,  # simulation steps per iteration, Swimmer
        "gamma": 0.99,
        "gae_lambda": 1.0,  # Q is the observed return
        "hidden_sizes": (30,),  # one hidden layer, Swimmer
        "activation": "tanh",
        "max_kl": 0.01,  # step size
        "kl_convention": "sum",
        "cg_iterations": 10,
        "cg_preconditioner": "none",
        "cg_damping": 0.03,
        "cg_damping_unit": "absolute",
        "remembered_states": 0,
        "fisher_fraction": 0.1,
        "standardize_advantages": False,
        "value_hidden_sizes": (30,),
        "value_activation": "tanh",
        "value_optimizer": "lbfgs",  # as in the author's own code, joschu/modular_rl
        "value_lbfgs_iterations": 25,
        "normalize_observations": False,
        "scale_returns": False,
    },
    by_environment={
        "Hopper": {
            "batch_size": 1_000_000,
            "hidden_sizes": (50,),
            "value_hidden_sizes": (50,),
        },
        "Walker2d": {
            "batch_size": 1_000_000,
            "hidden_sizes": (50,),
            "value_hidden_sizes": (50,),
        },
    },
    differences=(
        "the paper weights actions by observed returns without a baseline; ours subtracts a "
        "fitted value function, which lowers the variance",
        "activation, initial standard deviation, damping and line search ratio are not stated "
        "in the paper; ours are tanh and our defaults",
        "the vine procedure is not part of this preset",
    ),
)

PRESETS: Mapping[str, PresetInfo] = MappingProxyType(
    {p.name: p for p in (_SB3, _RL_ZOO_MUJOCO, _TIANSHOU, _SPINNINGUP, _BASELINES, _PAPER)}
)
"""Every preset by name."""
