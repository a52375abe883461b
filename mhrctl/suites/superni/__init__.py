"""Super-NaturalInstructions is read here."""
