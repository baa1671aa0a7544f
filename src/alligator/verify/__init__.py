"""Finding out whether tasks are lost or run twice while processes die and connections break."""
