"""The rows of the packaged student's target table, each of which runs alone."""
