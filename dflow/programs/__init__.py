"""Programs: what a call depends on, how they are traced, compiled, kept and called."""
