"""One folder a claim about sequence memories: a command, the method, tables with the losses, what to expect."""
