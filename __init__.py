"""Makes the relative imports of the folders beside this file resolve for tools; never shipped."""
