"""windtunnel: a wind tunnel for language models."""

__version__ = "0.1.0"
