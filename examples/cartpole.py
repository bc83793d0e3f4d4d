"""CartPole in ten lines: python examples/cartpole.py [steps]"""

import sys

from trpo_fast import TRPO

agent = TRPO("CartPole-v1", seed=0)
agent.learn(int(sys.argv[1]) if sys.argv[1:] else 50_000)
result = agent.evaluate(episodes=10)
print(f"return {result.mean_return:.0f} ± {result.std_return:.0f}")
agent.save("cartpole.safetensors")
agent.close()
