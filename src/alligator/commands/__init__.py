"""What the commands are made of: finding tasks and dead letters, and telling of them."""
