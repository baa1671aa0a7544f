"""What a store does (base.py), and how each does it: one file a store."""
