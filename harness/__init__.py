"""What every method shares: data, models, the training loop, measurement and the result file."""
