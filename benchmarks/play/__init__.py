"""How large the playground is, how soon it is seen, and how soon a slider is answered."""
