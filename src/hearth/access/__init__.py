"""All that the agent knows of the stored world."""
