"""What the Makefile calls. Nothing here is deployed."""
