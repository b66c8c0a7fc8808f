"""Other programs' formats, in and out, as free functions that know no run folders.

    huggingface.py   read_huggingface(folder): config.json, safetensors, tokenizer -> Pretrained
    export.py        huggingface_files(config, weights, tokenizer): what transformers loads without remote code
    gguf.py          gguf_bytes(config, weights, tokenizer): what llama.cpp opens
    proof.py         compare_with_transformers(model, folder): logits, loss and greedy text side by side
    alter.py         grouped queries, rotary positions or a window for a trained model

What one architecture's fields and tensors mean stands in gpt2.py and llama.py, once for both directions.
"""
