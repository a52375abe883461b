"""What mhrctl's speed options are worth, measured against peft and against the frozen model: `python -m benchmarks`."""
