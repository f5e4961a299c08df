"""How masks are stored, and what their values mean."""
