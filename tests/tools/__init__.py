"""Programs that the tests are made with, run by hand."""
