"""What surrounds every update: the agent, callbacks, evaluation."""
