"""How much of the source the tests hold in place: faults made on purpose, and whether a test notices."""
