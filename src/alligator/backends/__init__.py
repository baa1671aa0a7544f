"""What a store does (base.py), and how each does it: <scheme>_backend.py, of the parts in <scheme>/."""
