"""What the store in memory is made of."""
