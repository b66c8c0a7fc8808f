"""The page and the API: runs seen live, a look inside a model, and text from it for any client.

It has no logic of its own: what it shows comes from the rooms below.
"""
