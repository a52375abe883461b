"""Adapters are read and written in the formats of other libraries: peft's folders, T-Few's files, mttl's checkpoints."""
