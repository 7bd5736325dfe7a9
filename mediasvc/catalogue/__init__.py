"""What we know, and what is still to be done."""
