"""One folder a claim about optimizers with memories: a command, the method, tables with the losses, what to expect."""
