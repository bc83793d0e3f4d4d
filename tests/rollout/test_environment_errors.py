"""One sentence for everything that an environment, or a policy, may do wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from counting import (
    SCRIPT,
    BrokenEnv,
    CountingEnv,
    CountingPolicy,
    collect_twos,
    in_process,
)
from trpo_fast.envs import EnvironmentFailure
from trpo_fast.rollout import (
    InProcessSampler,
    VectorEnvSampler,
)

# steps of BrokenEnv: 0, 1 (terminated), then 2, 3, 4 (truncated), 5, ...
SENTENCES = {
    "nan observation": (ValueError, r"environment 6 \(\w+\), step 3: observation entry 1 is nan"),
    "nan, then raise": (ValueError, r"environment 6 \(\w+\), step 3: observation entry 1 is nan"),
    "huge observation": (ValueError, r"environment 6 \(\w+\), step 3: observation entry 1 is inf"),
    "nan reward": (ValueError, r"environment 6 \(\w+\), step 3: the reward is nan"),
    "infinite reward": (ValueError, r"environment 6 \(\w+\), step 3: the reward is -inf"),
    "nan final": (ValueError, r"step 3: entry 0 of the final observation is nan"),
    "nan at reset": (
        ValueError,
        r"reset before environment 6 \(\w+\), step 2: observation entry 0",
    ),
    "short": (
        ValueError,
        r"environment 6 .*, step 3: observation: expected shape \(2,\), got \(1,\)",
    ),
    "column": (ValueError, r"step 3: observation: expected shape \(2,\), got \(2, 1\)"),
    "nothing": (ValueError, r"step 3: observation: expected shape \(2,\), got \(\) \(NoneType\)"),
    "raise": (EnvironmentFailure, r"6 .*, step 3: the environment raised OSError: simulator lost"),
    "raise at reset": (EnvironmentFailure, r"reset after environment 6 .*, step 1: .*no display"),
    "raise at first reset": (
        EnvironmentFailure,
        r"reset before environment 6 .*, step 0: .*no disp",
    ),
    "old reset": (EnvironmentFailure, r"reset after environment 6 .*, step 1: .*must return \(obs"),
    "four values": (
        EnvironmentFailure,
        r"step 3: step\(\) must return \(observation, .*got 4 values, as old gym",
    ),
    "reward None": (EnvironmentFailure, r"step 3: reward: expected one number, got None"),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_bad_environments_get_a_sentence(what: str) -> None:
    expected, words = SENTENCES[what]
    # the second of two environments, in a group that starts at 5; a rollout that ends half-way
    sampler = InProcessSampler([CountingEnv(), BrokenEnv(what)], first_index=5)
    sampler.bind(CountingPolicy(), seed=0)
    with pytest.raises(expected, match=words) as caught:
        collect_twos(sampler)
    assert "\n" not in str(caught.value)
    if expected is EnvironmentFailure:
        assert caught.value.__cause__ is not None
    sampler.close()


VECTOR_SENTENCES = {
    "nan observation": (ValueError, r"environment 1 \(.*\), step 3: observation entry 1 is nan"),
    "nan, then raise": (ValueError, r"environment 1 \(.*\), step 3: observation entry 1 is nan"),
    "nan reward": (ValueError, r"environment 1 \(.*\), step 3: the reward is nan"),
    "raise": (EnvironmentFailure, r"step 3: the environment raised OSError: simulator lost"),
    "raise at first reset": (EnvironmentFailure, r"reset before .*, step 0: .*no display"),
    "raise at reset": (EnvironmentFailure, r"no display"),
}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("what", VECTOR_SENTENCES)
def test_bad_vector_environments_get_a_sentence(mode: AutoresetMode, what: str) -> None:
    expected, words = VECTOR_SENTENCES[what]
    at = 3 if mode != AutoresetMode.NEXT_STEP else 2  # one step was a reset
    vector_env = SyncVectorEnv([CountingEnv, lambda: BrokenEnv(what, at)], autoreset_mode=mode)
    sampler = VectorEnvSampler(vector_env)
    sampler.bind(CountingPolicy(), seed=0)
    with pytest.raises(expected, match=words):
        collect_twos(sampler)
    sampler.close()


class NanPolicy(CountingPolicy):
    def actor(self, observations: Any, actions: Any, counters: Any, envs: Any, *, seed: int) -> Any:
        class NanActor:
            def step(self, t: int) -> None:
                actions[t] = np.nan if t == 2 else 0.0

        return NanActor()


def test_a_policy_that_is_not_finite_is_named() -> None:
    sampler = in_process(SCRIPT, policy=NanPolicy())
    with pytest.raises(
        ValueError, match=r"environment 0 .*step 2: the policy chose the action nan"
    ):
        sampler.collect(4)
