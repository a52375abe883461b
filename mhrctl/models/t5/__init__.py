"""This is a second forward over the weights of a frozen transformers T5: packed, sharing projections, saving little."""
