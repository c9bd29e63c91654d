"""Black-box conformance suite for CNI plugin executables; see README.md."""
