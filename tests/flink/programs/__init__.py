"""Users' programs that the tests submit to a standalone cluster."""
