"""What the host does when a program runs: the driver, memory, graphs, libraries."""
