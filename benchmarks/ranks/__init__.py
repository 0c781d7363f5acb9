"""Steps of optimizers on many ranks: measured on one, two and four here, and worked out for models of 1B to 70B."""
