"""T0: P3's training mixture, and the eleven test tasks."""
