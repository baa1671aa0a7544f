"""What the SQS store is made of: queues, messages, sending, dead letters."""
