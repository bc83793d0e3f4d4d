"""Scripts that print every published figure: speed, learning, the peers, pictures, and their tools."""
