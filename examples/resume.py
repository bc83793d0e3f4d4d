"""A run that is stopped goes on as if it had not been: python examples/resume.py [steps]"""

import sys

import numpy as np

from trpo_fast import TRPO
from trpo_fast.callbacks import CheckpointEvery


def main(steps: int = 40_960) -> None:
    whole = TRPO("Pendulum-v1", seed=1, batch_size=1024)
    whole.learn(steps)

    # the same run, which saves itself now and then and is stopped half-way
    half = steps // 2 // 1024 * 1024
    stopped = TRPO("Pendulum-v1", seed=1, batch_size=1024)
    stopped.learn(half, callback=CheckpointEvery(1024, "pendulum.safetensors"))
    stopped.close()

    resumed = TRPO.load("pendulum.safetensors")  # the environments, too, are where they were
    resumed.learn(steps - half)
    same = np.array_equal(whole.policy.parameters, resumed.policy.parameters)
    print(
        f"after {resumed.timesteps} steps the weights are {'the same bits' if same else 'others'}"
    )
    whole.close()
    resumed.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
