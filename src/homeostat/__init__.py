"""homeostat: a supervised runtime for LLM agents that must run unattended.

The code lives in four top-level folders of the repository; this package is how they are installed.
"""

__version__ = "0.1.0"
