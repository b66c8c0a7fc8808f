"""Text: corpora, tokenizers, the token store and batches."""
