"""What one store has that others have not."""
