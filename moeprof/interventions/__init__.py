"""What can be changed, what that must do, and whether it did. Pure."""
