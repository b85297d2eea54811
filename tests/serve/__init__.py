"""Its conftest has a name of its own by this."""
