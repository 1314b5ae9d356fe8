"""Live terminals: programs on terminals that live on between calls."""
