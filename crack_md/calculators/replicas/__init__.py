"""Many replicas of molecular dynamics side by side."""
