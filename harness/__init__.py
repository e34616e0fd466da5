"""What every method shares, in rooms: docs/architecture.md shows what flows from which to which."""
