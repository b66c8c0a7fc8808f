"""The training doctor: look at a model before, during and after training, and name what is wrong and how to cure it.

`subject.py` says what is examined, `exam.py` measures it, `checks.py` judges what was measured; every other file is one
measurement as free functions. It needs of a model only that `model(**batch.inputs)` gives logits.
"""
