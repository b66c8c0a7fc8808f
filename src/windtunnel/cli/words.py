"""The words that a shell completes, written down so that none of the registries, and no torch, is imported for them.

A test holds each list to its registry, and says what is to be written here.
"""

RECIPES = """
    auto tiny small quick medium gpt2 llama mlp makemore translate classify clip clip-frozen clip-tuned
"""
CORPORA = """
    names python pets shakespeare pig-latin pig-latin-small pronunciations r8 names-sex tweets emoji
    emoji-by-picture emoji-captions emoji-noto emoji-styles emoji-keywords
"""
FETCHED = """
    shakespeare pronunciations r8 names-sex tweets emoji emoji-by-picture emoji-captions emoji-noto emoji-styles
"""
EXPERIMENTS = """
    duplicated-feature email-ab-test sparse-logistic-cost what-to-label coin-estimators reading-a-gpt tiny-corpus
    larger-corpus sentiment-head gpt2-report training-on-many-devices tensor-shapes seed-42 attention-by-hand
    descent learning-rate weight-decay-groups gpt2-source gpt2-positions gpt2-kv-heads gpt2-windows makemore-ladder
    initial-loss direct-connections zero-init quick-recipe fold-batch-norm recurrent-gradients
    attention-as-convolution attention-pieces translation-grid translate-sentence verbal-arithmetic clip-tour
    caption-hunt decoder-only published-isoflop isoflop-translators
"""
ROWS = """
    000-Q1 E1 000-Q2 E2 000-Q3 E3 000-Q4 E4 000-Q5 001-1.2.1 001-1.2.2 001-1.2.3 001-1.2.4 001-1.2.5 001-1.2.6
    001-1.2.7 001-1.2.8 001-1.2.9 001-1.2.10 E6 E7 E8 E9 E10 001-2.1 001-2.2 001-2.3 001-2.4 001-2.5 E11 E12 E13
    001-3.1 001-3.2 001-3.3 001-4.1 001-4.2 E14 E15 000-R 000-T3a 000-T3b 000-T3c 002-1.1 002-1.2 002-1.3 002-2
    002-3.1 002-3.2 E16 E18 002-4 E17 002-5.1 002-5.2 E35 000-T1 E5 000-T2a 000-T2b 000-T2c 003-1.E01 E19 003-1.E02
    E20 003-1.E03 E21 003-2.E01 E23 time-to-loss 003-2.E02 E22 E24 004-1.1.1 004-1.1.2 004-1.2.1 E25 004-1.3.1
    004-1.3.2 E26 E27 004-2.1.1 004-2.1.2 004-2.1.3 004-2.1.4 E28 E29 004-2.1.v 004-3.1 004-3.2 004-3.3 004-3.4
    004-3.5 E33 004-4.1 004-4.2 004-2.2.1 004-2.2.2 004-2.2.3 E30 004-2.3.p E31 004-2.3.1 004-2.3.2 004-2.3.3
    004-2.3.4 E32
"""
SETTINGS = """
    corpus text.unit text.tokenizer text.vocab_size text.dev_fraction text.test_fraction text.shuffle_seed
    text.columns model.family model.vocab_size model.context_length model.n_layers model.n_heads model.n_kv_heads
    model.d_model model.d_head model.d_ff model.position model.rope_base model.rope_scaling model.rotary_fraction
    model.window model.norm model.norm_position model.embedding_norm model.norm_epsilon model.activation model.bias
    model.norm_bias model.qkv_bias model.out_bias model.feed_forward_bias model.qk_norm model.parallel
    model.tie_embeddings model.dropout model.residual_scaling model.zero_biases model.out_projection
    model.feed_forward_layers model.head_bias model.causal model.d_embedding model.d_hidden model.hidden_bias
    model.batch_norm model.batch_norm_momentum model.batch_norm_epsilon model.batch_norm_unbiased model.direct
    model.init model.init_embedding model.init_hidden model.init_hidden_bias model.init_output
    model.init_output_bias model.init_direct model.encoder.n_layers model.encoder.n_heads model.encoder.n_kv_heads
    model.encoder.d_model model.encoder.d_head model.encoder.d_ff model.encoder.position model.encoder.norm
    model.encoder.norm_position model.encoder.activation model.encoder.bias model.encoder.dropout model.cell
    model.cell_bias model.encoder model.bidirectional model.attention model.trunk model.n_labels model.pool
    model.pooler model.picture.kind model.picture.size model.picture.cropped model.picture.patch
    model.picture.patch_bias model.picture.pool model.picture.mean model.picture.deviation model.picture.trunk
    model.picture.widths model.picture.depth model.picture.dropout model.picture.norm model.picture.pretrained
    model.picture.stages model.picture.solved model.picture.net model.picture.hidden model.picture.centres
    model.caption.kind model.caption.pool model.caption.trunk model.caption.net model.caption.pretrained
    model.caption.vocab_size model.caption.d_model model.caption.dropout model.caption.longest_run
    model.caption.buckets model.caption.hidden model.d_shared model.scale model.least_scale model.most_scale
    optimizer.name optimizer.lr optimizer.matrix_lr optimizer.beta_1 optimizer.beta_2 optimizer.epsilon
    optimizer.momentum optimizer.weight_decay optimizer.decay_vectors optimizer.trunk_factor optimizer.layer_decay
    schedule.curve schedule.warmup schedule.final_fraction schedule.drops schedule.ends train.steps train.batch_size
    train.n_examples train.grad_accumulation train.clip train.precision train.compile train.recompute train.threads
    train.eval_every train.eval_tokens train.save_every train.keep train.choose train.freeze train.sample_tokens
    train.explode seed task.kind task.class_weights task.label_smoothing task.augment.shift task.augment.scale
    task.augment.rotate task.augment.colour task.augment.flip task.solve_for start generator lora.rank lora.alpha
    lora.targets change
"""
