"""The stages are each a plain function from typed parameters and input folders to one output folder."""
