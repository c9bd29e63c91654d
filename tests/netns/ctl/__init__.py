"""Commands of the operator on nodes with pods."""
