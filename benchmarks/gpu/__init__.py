"""Everything that needs a GPU, in one command and eight minutes; docs/gpu.md says what each row means."""
