"""What ``alligator move`` is made of: what can go, what is about to, carrying it, and telling."""
