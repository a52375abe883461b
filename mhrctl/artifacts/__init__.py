"""This room has what stages leave behind: names, cards, atomic writing, what decides an output, versions of results."""
