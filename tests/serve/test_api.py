"""The API tells the truth: its numbers are those of a forward pass, its texts those of the command line."""

import asyncio
import json

import numpy as np
import openai
import pytest
import torch
from served import asking, make_run, post

from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig, log_softmax
from windtunnel.generation.trace import trace
from windtunnel.serve import writing
from windtunnel.text.tokenizers import bytes_tokenizer
from windtunnel.training.run import load

GREEDY = {"temperature": 0}


def direct(folder, ids):
    """The natural logarithms (T, V) of the probabilities after each id, by one forward pass."""
    with torch.no_grad():
        return log_softmax(load(folder).model(torch.tensor([ids]))[0].double().numpy())


def text_of(root, run, prompt, n_tokens, seed=0, stop=(), **sampling):
    """What windtunnel generate writes, without the prompt."""
    made = trace(load(root / run), Request(prompt, n_tokens, SamplingConfig(**sampling), seed, 0, stop))
    return made.text[len(prompt) :], made.finish


@pytest.mark.parametrize("most_logits", [1 << 26, 60])
def test_echoed_logarithms_are_those_of_a_forward_pass(ask, root, monkeypatch, most_logits):
    """In one pass, or in several of two positions each."""
    monkeypatch.setattr(writing, "MOST_LOGITS", most_logits)
    body = {"model": "names", "prompt": "anna", "echo": True, "logprobs": 3, "max_tokens": 1, **GREEDY}
    [choice] = ask("/v1/completions", body)["choices"]
    found, tokenizer = choice["logprobs"], load(root / "names/seed-0").tokenizer
    ids = [tokenizer.end_id, *tokenizer.encode("anna").tolist()]
    log_TV = direct(root / "names/seed-0", ids)
    last = int(log_TV[-1].argmax())
    expected = [log_TV[i, id] for i, id in enumerate([*ids[1:], last])]
    assert found["token_logprobs"] == pytest.approx(expected, abs=1e-5)
    assert found["tokens"][:4] == list("anna")
    assert found["text_offset"] == [0, 1, 2, 3, 4]
    assert choice["text"].startswith("anna")
    for top, log_V, value in zip(found["top_logprobs"], log_TV, found["token_logprobs"], strict=True):
        best = np.sort(log_V)[::-1][:3]
        assert sorted(top.values(), reverse=True)[:3] == pytest.approx(best, abs=1e-5)
        assert value in top.values()
    assert found["token_logprobs"][-1] == max(found["top_logprobs"][-1].values())


def test_a_prompt_of_ids_is_scored_as_it_is(ask, root):
    ids = [[5, 3, 3, 1], [0, 2], [9, 9, 9, 9]]
    body = {"model": "names/seed-1", "prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 1, **GREEDY}
    choices = ask("/v1/completions", body)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    for choice, own in zip(choices, ids, strict=True):
        log_TV = direct(root / "names/seed-1", own)
        first, *rest = choice["logprobs"]["token_logprobs"]
        assert first is None
        assert choice["logprobs"]["top_logprobs"][0] is None
        assert rest[:-1] == pytest.approx([log_TV[i, id] for i, id in enumerate(own[1:])], abs=1e-5)
        assert len(rest) == len(own)  # one token always comes back


@pytest.mark.parametrize("run", ["prose", "mlp", "rnn"])
def test_beyond_the_context_the_logarithms_are_those_of_a_trace(ask, root, run):
    prompt = "abcabcxyz" * 4
    body = {"model": run, "prompt": prompt, "echo": True, "logprobs": 0, "max_tokens": 2, **GREEDY}
    found = ask("/v1/completions", body)["choices"][0]["logprobs"]
    made = trace(load(root / run), Request(prompt, 2, SamplingConfig(temperature=0), 0, 0))
    expected = [None if t.surprise_bits is None else -t.surprise_bits * np.log(2) for t in made.tokens]
    assert found["token_logprobs"] == pytest.approx(expected, abs=1e-5)
    assert found["top_logprobs"] is None


@pytest.mark.parametrize("run", ["names/seed-0", "prose", "mlp", "rnn"])
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 0.9, "top_p": 0.8}, {"top_k": 3}])
def test_a_text_is_that_of_the_command_line(ask, root, run, sampling):
    body = {"model": run, "prompt": "ab", "max_tokens": 30, "seed": 7, "n": 3, **sampling}
    answer = ask("/v1/completions", body)
    expected = [text_of(root, run, "ab", 30, 7 + i, **sampling) for i in range(3)]
    assert [(one["text"], one["finish_reason"]) for one in answer["choices"]] == expected
    assert answer["seed"] == 7


def test_what_shares_a_pass_does_not_change_a_text(ask, root):
    prompts = ["ab", "cd", "abc", "xyz", "ef"]
    body = {"model": "prose", "prompt": prompts, "max_tokens": 25, "seed": 3, "n": 2}
    texts = [one["text"] for one in ask("/v1/completions", body)["choices"]]
    assert texts == [text_of(root, "prose", prompt, 25, 3 + i)[0] for prompt in prompts for i in range(2)]


def test_a_long_prompt_comes_back_as_it_was_and_its_end_tells_how_the_text_goes_on(ask, root):
    ids = list("naïve 東京 ".encode()) * 100
    whole = ask("/v1/completions", {"model": "prose", "prompt": ids, "max_tokens": 2, "n": 9, "echo": True, "seed": 1})
    prompt = bytes(ids).decode()
    expected = [text_of(root, "prose", prompt[-40:], 2, 1 + i)[0] for i in range(9)]
    assert [choice["text"] for choice in whole["choices"]] == [prompt + text for text in expected]


def test_without_a_seed_texts_differ_and_can_be_had_again(ask):
    body = {"model": "prose", "prompt": "a", "max_tokens": 30}
    first, second = (ask("/v1/completions", body) for _ in range(2))
    assert first["choices"][0]["text"] != second["choices"][0]["text"]
    again = ask("/v1/completions", {**body, "seed": first["seed"]})
    assert again["choices"] == first["choices"]


def test_a_text_ends_before_its_stop_and_a_stream_never_shows_it(ask, root):
    text, _ = text_of(root, "prose", "ab", 40, 1)
    stop = text[10:12]
    body = {"model": "prose", "prompt": "ab", "max_tokens": 40, "seed": 1, "stop": stop, "logprobs": 1}
    [choice] = ask("/v1/completions", body)["choices"]
    assert (choice["text"], choice["finish_reason"]) == text_of(root, "prose", "ab", 40, 1, (stop,))
    streamed = "".join(one["choices"][0]["text"] for one in events(ask("/v1/completions", {**body, "stream": True})))
    assert streamed == choice["text"]
    assert stop not in streamed


def events(text):
    """The JSON of server-sent events."""
    *parts, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def test_a_stream_says_what_the_whole_answer_says(ask):
    body = {"model": "names", "prompt": ["ab", "cde"], "max_tokens": 20, "n": 2, "seed": 5, "echo": True, "logprobs": 2}
    whole = ask("/v1/completions", body)
    parts = events(ask("/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}))
    assert parts[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        own = [one for part in parts for one in part["choices"] if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in own) == choice["text"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        for name, values in choice["logprobs"].items():
            assert [value for one in own for value in one["logprobs"][name]] == values


def test_usage_counts_prompts_once_and_every_token_written(ask):
    answer = ask("/v1/completions", {"model": "prose", "prompt": ["abc", "d"], "n": 3, "max_tokens": 4})
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 24, "total_tokens": 28}


def test_no_tokens_give_the_prompt_alone(ask):
    body = {"model": "prose", "prompt": "abc", "max_tokens": 0, "echo": True, "logprobs": 1}
    [choice] = ask("/v1/completions", body)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("abc", "length")
    assert len(choice["logprobs"]["tokens"]) == 3
    assert ask("/v1/completions", {**body, "echo": False})["choices"][0]["text"] == ""


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "other"}, 404, "there is no model 'other'"),
        ({"model": "../names"}, 404, "there is no model"),
        ({"model": "/etc"}, 404, "there is no model"),
        ({"prompt": "MAR"}, 400, "no token for the character 'M'"),
        ({"prompt": [27]}, 400, "there is no token 27; the ids of this tokenizer are 0 to 26"),
        ({"model": "prose", "prompt": ""}, 400, "the prompt is empty"),
        ({"model": "pairs"}, 400, "writes the target of a source"),
        ({"best_of": 2}, 400, "best_of is not supported"),
        ({"logit_bias": {"3": 5}}, 400, "logit_bias is not supported"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty is not supported"),
        ({"max_tokens": 10**6}, 400, "max_tokens: input should be less than or equal to 16384"),
        ({"prompt": "a" * 300_000}, 400, "prompts times n are at most 262,144 characters"),
        ({"prompt": "a" * 3000, "n": 128}, 400, "prompts times n are at most 262,144 characters"),
        ({"max_tokens": 16_384, "n": 17}, 400, "texts times max_tokens are at most 262,144 tokens"),
        ({"max_tokens": 16_384, "n": 2, "logprobs": 20}, 400, "an answer has at most 524,288 logarithms"),
        ({"prompt": ["a"] * 129}, 400, "at most 128 prompts"),
        ({"model": "prose", "prompt": "\ud800"}, 400, "half of a surrogate pair"),
        ({"stop": list("abcde")}, 400, "stop: at most 4 texts"),
        ({"logprobs": 21}, 400, "logprobs: input should be less than or equal to 20"),
        ({"model": "prose", "prompt": "a" * 5000, "echo": True, "logprobs": 1}, 400, "at most 4,096 tokens"),
    ],
)
def test_what_cannot_be_answered_is_said_before_an_answer_begins(ask, body, status, message):
    for stream in (False, True):
        found = ask("/v1/completions", {"model": "names", "prompt": "a", "stream": stream, **body}, status)
        assert message in found["error"]["message"]


def test_what_changes_nothing_is_ignored(ask):
    more = {"best_of": 1, "user": "x", "suffix": None, "logit_bias": {}, "frequency_penalty": 0.0, "stop": None}
    body = {"model": "names", "prompt": "none", **GREEDY}
    assert ask("/v1/completions", {**body, **more})["choices"] == ask("/v1/completions", body)["choices"]


def test_what_overflows_has_no_number(tmp_path):
    """JSON has neither infinity nor NaN, and a client that asks is no reason to fail."""
    make_run(tmp_path / "wild", bytes_tokenizer(end=True), scale=1e30)

    async def run():
        async with asking(tmp_path) as client:
            body = {"prompt": "ab", "logprobs": 2, "echo": True, "max_tokens": 2}
            chosen = await post(client, "/v1/completions", body)
            streamed = await post(client, "/v1/completions", {**body, "stream": True})
            return chosen, streamed

    chosen, streamed = asyncio.run(run())
    assert set(chosen.json()["choices"][0]["logprobs"]["token_logprobs"]) == {None}
    assert streamed.text.endswith("data: [DONE]\n\n")


def test_models_have_the_names_that_a_request_may_say(ask):
    listed = [one["id"] for one in ask("/v1/models")["data"]]
    assert sorted(listed) == ["mlp", "names/seed-0", "names/seed-1", "pairs", "prose", "rnn", "talk"]
    assert ask("/v1/models/names/seed-1")["id"] == "names/seed-1"
    assert ask("/v1/models/nothing", status=404)["error"]["code"] == "model_not_found"


def test_ids_and_texts(ask):
    assert ask("/tokenizer_info?model=names")["eos_token"] == "<|endoftext|>"
    assert ask("/tokenizer_info?model=prose")["eos_token"] is None
    about = ask("/tokenizer_info?model=talk")
    assert (about["bos_token"], about["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert ask("/tokenize", {"model": "names", "prompt": "ab"})["tokens"] == [0, 1, 2]
    assert ask("/tokenize", {"model": "names", "prompt": "ab", "add_special_tokens": False})["tokens"] == [1, 2]
    assert ask("/tokenize", {"model": "names", "prompt": "<|endoftext|>"})["tokens"] == [0]
    assert ask("/detokenize", {"model": "names", "tokens": [1, 2, 0]})["prompt"] == "ab<|endoftext|>"
    assert "there is no token" in ask("/detokenize", {"model": "names", "tokens": [99]}, 400)["error"]["message"]


def test_a_conversation_is_what_the_template_makes_of_it(ask, root):
    turns = [{"role": "system", "content": "Be <|im_end|>"}, {"role": "user", "content": "Hi"}]
    whole = "<|im_start|>system\nBe END<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    tokenizer = load(root / "talk").tokenizer
    ids = []
    for piece in whole.replace("<|im_start|>", "\0S\0").replace("<|im_end|>", "\0E\0").split("\0"):
        marks = {"S": [256], "E": [257]}
        ids += marks.get(piece) or tokenizer.encode(piece.replace("END", "<|im_end|>")).tolist()
    ask_for = {"model": "talk", "max_tokens": 12, "seed": 4}
    found = ask("/v1/chat/completions", {**ask_for, "messages": turns, "logprobs": True, "top_logprobs": 2})
    plain = ask("/v1/completions", {**ask_for, "prompt": ids, "logprobs": 2})
    [choice], [same] = found["choices"], plain["choices"]
    assert choice["message"]["content"] == same["text"]
    assert [one["logprob"] for one in choice["logprobs"]["content"]] == same["logprobs"]["token_logprobs"]
    assert found["usage"] == plain["usage"]
    refusal = ask("/v1/chat/completions", {"model": "names", "messages": turns}, 400)
    assert "names/seed-0 has no chat template" in refusal["error"]["message"]
    refusal = ask("/v1/chat/completions", {**ask_for, "messages": turns, "max_tokens": 9000, "n": 30}, 400)
    assert "at most 262,144 tokens" in refusal["error"]["message"]


def test_the_openai_client_completes_streams_and_reads_logarithms(server, root):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    asked = {"model": "names", "prompt": "ab", "max_tokens": 12, "temperature": 0}
    text, finish = text_of(root, "names/seed-0", "ab", 12, temperature=0)
    whole = client.completions.create(**asked, logprobs=2, echo=True)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (f"ab{text}", finish)
    top, values = whole.choices[0].logprobs.top_logprobs, whole.choices[0].logprobs.token_logprobs
    assert all(value == max(one.values()) for one, value in zip(top[2:], values[2:], strict=True))
    with client.completions.create(**asked, stream=True) as stream:
        assert "".join(part.choices[0].text for part in stream) == text
    assert "names/seed-0" in [model.id for model in client.models.list()]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")
    with pytest.raises(openai.BadRequestError, match="no token for the character"):
        client.completions.create(**{**asked, "prompt": "MAR"}, stream=True)


def test_the_openai_client_converses(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    asked = {"model": "talk", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "seed": 2}
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.create(**asked, stream=True) as stream:
        parts = [part.choices[0] for part in stream]
    assert "".join(part.delta.content for part in parts) == whole.choices[0].message.content
    assert parts[0].delta.role == "assistant"
    assert parts[-1].finish_reason == whole.choices[0].finish_reason
