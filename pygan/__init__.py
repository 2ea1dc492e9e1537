"""pygan: training image generators on little data."""

__version__ = "0.1.0"
