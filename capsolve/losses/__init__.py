"""Loss models: what a feature still costs at a given capacity."""
