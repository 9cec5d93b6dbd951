"""Loops and branches on traced conditions, and the variables that they leave behind."""
