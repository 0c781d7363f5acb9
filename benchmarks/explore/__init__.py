"""What recording costs a training, how much memory a long record takes to serve, and how long the page draws."""
