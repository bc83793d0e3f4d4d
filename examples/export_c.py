"""A policy in a C program: python examples/export_c.py [steps]

Trains, writes trpo_policy.h, compiles it with what is there (gcc, clang or CC) and compares the actions
of 1,000 observations with those of predict.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from trpo_fast import TRPO

PROGRAM = r"""
#include <stdio.h>
#include "trpo_policy.h"

/* observations in, actions out, as raw numbers */
int main(void) {
  float observation[TRPO_POLICY_OBSERVATION], action[TRPO_POLICY_ACTION];
  while (fread(observation, sizeof(float), TRPO_POLICY_OBSERVATION, stdin) == TRPO_POLICY_OBSERVATION) {
    if (trpo_policy_act(observation, NULL, action) != 0) return 1;
    fwrite(action, sizeof(float), TRPO_POLICY_ACTION, stdout);
  }
  return 0;
}
"""


def main(steps: int = 50_000) -> None:
    agent = TRPO("Pendulum-v1", seed=0)
    agent.learn(steps)
    agent.export("trpo_policy.h")
    agent.close()
    observations = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    expected, _ = agent.predict(observations, deterministic=True)

    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("trpo_policy.h is written, and there is no C compiler here to try it with")
    Path("main.c").write_text(PROGRAM)
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([compiler, *flags, "main.c", "-o", "main", "-lm"], check=True)
    output = subprocess.run(
        ["./main"], input=observations.tobytes(), capture_output=True, check=True
    )
    actions = np.frombuffer(output.stdout, np.float32).reshape(expected.shape)
    print(f"largest difference of 1,000 torques: {np.abs(actions - expected).max():.1e} N m of 2")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
