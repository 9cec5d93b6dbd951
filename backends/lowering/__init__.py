"""From IR to a `Plan`: which tensors exist, which operations are one kernel, and where in memory everything lies."""
