"""What `import windtunnel as wt` offers: each name is one function or class of this room, imported when it is used."""
