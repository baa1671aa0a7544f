"""What worker processes are made of, and the parent that looks after them."""
