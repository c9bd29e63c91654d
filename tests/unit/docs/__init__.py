"""The pages of README.md and docs/ say what the code does."""
