"""Which texts to label next, whether choosing them helps at all, and which labels look wrong."""
