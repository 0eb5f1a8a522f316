"""The long forms of tests: `python -m tests.soak`, and what their short forms share."""
