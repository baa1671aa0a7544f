"""What the PostgreSQL store is made of: the schema, connections, listening, records."""
