"""The optimizers inside the programs that users train with: their real Trainer and Accelerator, not stand-ins."""
