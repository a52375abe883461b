"""This room has what is trained: skills with their routing, (IA)3, whole weights, sparse mixtures; their files and factory."""
