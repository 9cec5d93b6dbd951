"""Lists to which traced loops append, and what can be done with them."""
