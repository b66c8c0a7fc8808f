"""Free functions first, Modules around them: attention, positions, norms, feed-forward, cache, initialisation.

Shape suffixes used in this package and in `models/`:

    B  batch            D  d_model, width of the residual stream     H  n_heads, query heads
    T  query positions  K  d_head, width of one head                 G  n_kv_heads, key and value heads
    S  key positions    F  d_ff, width inside the feed-forward       V  vocab_size
"""
