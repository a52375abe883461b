"""What is trained: skills with their routing, (IA)3 vectors, whole weights, sparse mixtures; their files and their factory."""
