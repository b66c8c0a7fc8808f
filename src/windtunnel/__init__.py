"""windtunnel: a wind tunnel for language models."""

import os

# Large tensors in pages of 2 MiB: a training step allocates its activations anew, and on Linux the page faults of
# small pages cost it up to a fifth of its time. torch reads this at its first allocation; elsewhere nothing happens.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
