"""`podwirectl capture`: frames of several links in one file. Its door is `capture.record`."""
