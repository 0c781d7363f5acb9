"""What other libraries need of us, tested with their real packages."""
