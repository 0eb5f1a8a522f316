"""What a run trains on: frames, batches, labels of teachers."""
