"""What the Redis store is made of: connections, scripts, records."""
