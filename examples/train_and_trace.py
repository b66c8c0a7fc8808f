"""Train a small model on a grammar that knows its own probabilities, and lay the model's beside them."""

import windtunnel as wt

model = wt.train("pets", recipe="tiny", steps=100)[0]
print(f"dev loss {model.evaluate('dev').loss:.3f} nats per token")
for token in model.generate("He and I", tokens=4).tokens:
    print(f"{token.text:10} {token.probability_1:.3f}  true {token.true_probability:.3f}")
