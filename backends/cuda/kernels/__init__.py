"""One kernel a module: how the operations of a plan are done by the threads of a GPU."""
