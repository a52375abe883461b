"""T0 has P3's training mixture, and the eleven test tasks."""
