"""Write the files of other libraries that tests/foreign reads, and how their policies act.

    python tests/harness/store_foreign.py

Needs PyTorch and sb3-contrib (``pip install ".[bench]"``). Small policies, trained for one batch.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import torch
from sb3_contrib import TRPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

DATA = Path(__file__).resolve().parents[1] / "foreign" / "data"
N = 200  # observations of which the actions are kept


def store(name: str, stem: str, *, normalize: bool, **policy_kwargs: object) -> None:
    """Train for a batch, save, and keep what the policy says to random observations.

    Parameters
    ----------
    name
        Gymnasium id.
    stem
        Of the files.
    normalize
        Whether to train in a VecNormalize.
    **policy_kwargs
        Of the policy.
    """
    env = make_vec_env(name, n_envs=2, seed=0)
    if normalize:
        env = VecNormalize(env, gamma=0.97, clip_obs=3.0)
    model = TRPO("MlpPolicy", env, seed=0, n_steps=256, gamma=0.97, policy_kwargs=policy_kwargs)
    model.learn(1024)
    model.save(DATA / f"{stem}.zip")
    keep_policy_only(DATA / f"{stem}.zip")
    rows = np.random.default_rng(0).normal(size=(N, env.observation_space.shape[0]))
    rows = (2.0 * rows).astype(np.float32)
    seen, scale = rows, 1.0
    if normalize:
        env.save(str(DATA / f"{stem}_vecnormalize.pkl"))
        env.training = False
        seen, scale = env.normalize_obs(rows), float(np.sqrt(env.ret_rms.var + env.epsilon))
    actions, _ = model.predict(seen, deterministic=True)
    with torch.no_grad():
        values = model.policy.predict_values(torch.as_tensor(seen.astype(np.float32))).numpy()
    values = scale * values.ravel().astype(np.float64)
    np.savez(DATA / f"{stem}.npz", rows=rows, actions=actions, values=values)


def keep_policy_only(path: Path) -> None:
    """Leave optimizer and facts about the machine out of a zip.

    Parameters
    ----------
    path
        The zip, written anew.
    """
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in ("data", "policy.pth")}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in kept.items():
            archive.writestr(name, data)


def store_state_dict() -> None:
    """A state dict as Tianshou writes it: an actor with a free sigma_param, and a critic."""
    torch.manual_seed(0)

    def net(n_out: int) -> torch.nn.Sequential:
        return torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.SiLU(), torch.nn.Linear(8, n_out)
        )

    algorithm = torch.nn.Module()
    algorithm.policy = torch.nn.Module()
    algorithm.policy.actor = net(1)
    algorithm.policy.actor.sigma_param = torch.nn.Parameter(torch.full((1, 1), -0.7))
    algorithm.critic = net(1)
    stream = io.BytesIO()
    torch.save(algorithm.state_dict(), stream)
    (DATA / "algorithm.pth").write_bytes(stream.getvalue())
    rows = np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)
    with torch.no_grad():
        means = algorithm.policy.actor(torch.from_numpy(rows)).numpy()
        values = algorithm.critic(torch.from_numpy(rows)).numpy().ravel()
    np.savez(DATA / "algorithm.npz", rows=rows, actions=means, values=values)


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    assert gymnasium.spec("CartPole-v1")
    layers = {"pi": [8], "vf": [12, 8]}
    store("CartPole-v1", "cartpole", normalize=False, net_arch=layers, activation_fn=torch.nn.ReLU)
    store("Pendulum-v1", "pendulum", normalize=True, net_arch=[8, 8])
    store_state_dict()
