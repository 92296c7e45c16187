"""Every claim of the paper against evidence computed here."""
