"""Fast twins of what stands readable elsewhere; each is exact and held equal by a test (level 0)."""
