"""What a model does with more tokens: shapes seen on the meta device, cost, drift, and a verdict on each claim."""
