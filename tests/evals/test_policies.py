"""`rein eval policies`: what it writes, that it goes on to the same bytes, that its numbers are those of the texts."""

import json
import math

import numpy as np
import pytest
import torch

from rein.config import from_flags, replace
from rein.errors import UserError
from rein.evals import policies_answers
from rein.evals.policies import PoliciesConfig, policies_command
from rein.evals.rouge import rouge_l
from rein.models.gpt import GPT, GPTConfig
from rein.models.huggingface import load_model, save_model
from rein.models.rows import Completion, log_ratios
from rein.models.scalar import save_scalar, scalar_from
from rein.run import read_rows

HOSTILE = "</p><script>alert(1)</script>\u202e"


def vowels(context, text):
    """A judge: the share of letters e."""
    return text.count("e") / max(1, len(text))


def broken(context, text):
    """No judge."""
    return math.nan


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory):
    """Two policies, one of them after a little noise, and a reward model."""
    root = tmp_path_factory.mktemp("policies")
    config = GPTConfig(n_vocab=tokenizer.n_vocab, n_ctx=64, n_embd=16, n_head=2, n_layer=1)
    first, second = GPT(config).initialise(0), GPT(config).initialise(0)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in second.parameters():
            weights += 0.05 * torch.randn_like(weights)
    for name, model in (("sft", first), ("ppo", second)):
        (root / name).mkdir()
        save_model(root / name, model, tokenizer)
    (root / "reward").mkdir()
    save_scalar(root / "reward", scalar_from(first, 0), tokenizer)
    rows = [{"prompt": f"say {i}:", "title": "t", "reference": "the end of it", "id": f"p{i}"} for i in range(6)]
    rows[1]["reference"] = None
    rows.append({"prompt": "long " * 60, "id": "long", "reference": "x"})
    rows.append({"prompt": HOSTILE, "id": HOSTILE, "reference": HOSTILE})
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def settings(folders, out, /, **changes):
    plain = {"policies": (f"sft={folders / 'sft'}", f"ppo={folders / 'ppo'}"), "prompts": folders / "prompts.jsonl",
             "judge": (f"{__name__}:vowels",), "reference_policy": "sft", "response_tokens": 10,
             "slots": 16}  # fmt: skip
    return PoliciesConfig(**{"out": out} | plain | changes)


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "out"
    reward = str(folders / "reward")
    config = settings(folders, out, judge=(f"{__name__}:vowels", reward), baseline=("title",), per_prompt=2,
                      temperature=1.0)  # fmt: skip
    return policies_command(config)


@pytest.fixture(scope="module")
def found(finished):
    return json.loads((finished / "policies.json").read_text())


def test_numbers_are_those_of_the_texts(finished, found):
    rows = {row["id"]: row for row in read_rows(finished / "answers/ppo.jsonl")}
    assert rows["long"]["texts"] is None
    assert found["left_out"] == {"sft: no room for 10 tokens behind the query in a context of 64": 1}
    assert found["prompts"] == 7
    ppo = next(one for one in found["policies"] if one["name"] == "ppo")
    said = {id: row["texts"] for id, row in rows.items() if row["texts"]}
    assert all(len(texts) == 2 for texts in said.values())
    flat = [text for texts in said.values() for text in texts]
    judge = f"{__name__}:vowels"
    assert ppo["scores"][judge]["value"] == pytest.approx(np.mean([vowels({}, text) for text in flat]), abs=1e-6)
    assert ppo["lengths"]["characters"]["value"] == pytest.approx(np.mean([len(text) for text in flat]))
    f1 = [rouge_l(text, HOSTILE if id == HOSTILE else "the end of it").f1
          for id, texts in said.items() if id != "p1" for text in texts]  # fmt: skip
    assert ppo["rouge"]["rouge_l"]["value"] == pytest.approx(np.mean(f1))
    sft = {row["id"]: row for row in read_rows(finished / "answers/sft.jsonl")}
    wins = [(a > b) + (a == b) / 2 for id in said
            for a, b in zip(rows[id]["scores"][judge], sft[id]["scores"][judge], strict=True)]  # fmt: skip
    raw = next(one for one in found["wins"] if (one["policy"], one["against"], one["by"]) == ("ppo", "sft", judge))
    assert (raw["raw"]["value"], raw["pairs"], raw["prompts"]) == (pytest.approx(np.mean(wins)), 14, 7)
    of_references = next(one for one in found["wins"] if (one["policy"], one["against"]) == ("ppo", "ref"))
    assert of_references["pairs"] == 12  # one prompt has no reference
    assert {one["name"] for one in found["policies"]} == {"sft", "ppo", "title", "ref"}


def test_the_kl_of_the_reference_itself_is_zero_and_another_one_is_not(found):
    kl = {one["name"]: one["kl_nats"] for one in found["policies"]}
    assert (kl["sft"]["value"], kl["sft"]["low"], kl["sft"]["high"]) == (0, 0, 0)
    assert kl["ppo"]["value"] != 0
    assert kl["ref"] is kl["title"] is None


def test_log_ratios_are_those_of_plain_softmax_and_of_no_batch(folders):
    (sft, _), (ppo, _) = (load_model(folders / name) for name in ("sft", "ppo"))
    both = [Completion((5, 6), (7, 8, 9)), Completion((1,), (2,))]
    found = log_ratios(ppo, sft, both, temperature=0.7).tolist()
    for each, ratio in zip(both, found, strict=True):
        ids = torch.tensor([[*each.query, *each.response]])
        at = torch.arange(len(each.query) - 1, ids.shape[1] - 1)
        with torch.no_grad():
            ours, theirs = ((model(ids)[0] / 0.7).log_softmax(-1)[at, ids[0, at + 1]].sum() for model in (ppo, sft))
        assert ratio == pytest.approx(float(ours - theirs), abs=1e-5)
        assert log_ratios(ppo, sft, [each], temperature=0.7).tolist() == pytest.approx([ratio], abs=1e-5)


def test_a_judge_that_is_a_model_scores_as_the_model_does(folders, finished, tokenizer):
    from rein.models.reward import load_reward
    from rein.text.prompts import FORMATS, encode_query, encode_response

    judge = load_reward(str(folders / "reward"), tokenizer, device=torch.device("cpu"))
    completion = Completion(
        encode_query(FORMATS["plain"], {"prompt": "say 0:"}, tokenizer),
        encode_response("the end of it", tokenizer, FORMATS["plain"]),
    )
    score = judge.scores([completion], [{}], ["the end of it"]).item()
    found = json.loads((finished / "policies.json").read_text())
    example = next(one for one in found["examples"] if one["id"] == "p0")
    shown = next(one for one in example["texts"] if one["policy"] == "ref")
    assert shown["scores"][str(folders / "reward")] == pytest.approx(score, abs=1e-5)


def test_it_goes_on_to_the_same_bytes(folders, tmp_path, monkeypatch):
    """Stopped within the second policy, with a last line cut short: the same command ends with the same files."""
    monkeypatch.setattr(policies_answers, "AT_ONCE", 3)
    config = settings(folders, tmp_path / "whole")
    policies_command(config)
    real, calls = policies_answers._respond, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    parts = replace(config, out=tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(policies_answers, "_respond", failing)
        with pytest.raises(KeyboardInterrupt):
            policies_command(parts)
    path = tmp_path / "parts/answers/ppo.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    policies_command(parts)
    for name in ("answers/sft.jsonl", "answers/ppo.jsonl", "policies.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_the_page_shows_hostile_text_and_nothing_unknown(finished):
    page = (finished / "policies.html").read_text()
    body = page.split("<main>")[1]
    assert "Content-Security-Policy" in page
    assert "<script>" not in page
    assert "⟨U+202E⟩" in body
    assert body.count("<figure>") == 2  # the score over KL, of each judge
    assert not {"nan", "inf", "None"} & set(body.replace(">", " ").replace("<", " ").split())


def test_one_prompt_has_no_interval(folders, tmp_path):
    out = policies_command(settings(folders, tmp_path / "out", n_prompts=1))
    found = json.loads((out / "policies.json").read_text())
    for one in found["wins"]:
        assert one["raw"]["low"] is None
        assert (one["controlled"], one["stratified"], one["length_logit"]) == (None, None, None)
    body = (out / "policies.html").read_text().split("<main>")[1]
    assert ", at equal length" not in body  # a number of so few pairs is no headline
    assert "None" not in body
    assert all(one["lengths"]["words"]["low"] is None for one in found["policies"])


def test_weights_and_prompts_may_not_change_between_starts(folders, tmp_path, tokenizer):
    config = settings(folders, tmp_path / "out", policies=(f"sft={tmp_path / 'sft'}",), prompts=tmp_path / "p.jsonl",
                      n_prompts=2)  # fmt: skip
    (tmp_path / "sft").mkdir()
    model, _ = load_model(folders / "sft")
    save_model(tmp_path / "sft", model, tokenizer)
    text = (folders / "prompts.jsonl").read_text()
    (tmp_path / "p.jsonl").write_text(text)
    policies_command(config)
    (tmp_path / "p.jsonl").write_text(text.replace("say 1", "say one"))
    with pytest.raises(UserError, match="p1 asks something else"):
        policies_command(config)
    (tmp_path / "p.jsonl").write_text(text)
    save_model(tmp_path / "sft", load_model(folders / "ppo")[0], tokenizer)
    with pytest.raises(UserError, match="sft has other weights now"):
        policies_command(config)


def test_a_kl_needs_one_tokenizer(folders, tmp_path):
    from rein.bpe.trainer import train

    other = train(["other words altogether, and more of them"], 270)
    config = GPTConfig(n_vocab=other.n_vocab, n_ctx=64, n_embd=16, n_head=2, n_layer=1)
    (tmp_path / "other").mkdir()
    save_model(tmp_path / "other", GPT(config).initialise(0), other)
    with pytest.raises(UserError, match="another tokenizer than --reference-policy"):
        policies_command(settings(folders, tmp_path / "out", reference_policy=str(tmp_path / "other")))


def test_the_flags():
    words = ["sft=a", "ppo=b", "--prompts", "p", "--judge", "m:f", "r", "--tax", "piqa", "arc_easy", "--out", "o"]
    config = from_flags(PoliciesConfig, words, prog="rein eval policies", description="")
    assert (list(config.paths()), config.judge, config.tax) == (["sft", "ppo"], ("m:f", "r"), ("piqa", "arc_easy"))
    words = ["--store", "l.db", "--project", "p", "--out", "o"]
    assert from_flags(PoliciesConfig, words, prog="rein eval policies", description="").policies == ()


@pytest.mark.parametrize(("changes", "words"), [
    ({"policies": ("ppo",)}, "'ppo' is no policy"),
    ({"policies": ("ref=x",)}, "'ref=x' is no policy"),
    ({"policies": ("a=x", "a=y")}, "'a' is named twice"),
    ({"policies": ()}, "--prompts is given without policies"),
    ({"prompts": None}, "Policies are given without --prompts"),
    ({"policies": (), "prompts": None, "reference_policy": ""}, "There is nothing to evaluate"),
    ({"policies": (), "prompts": None, "store": "a.db", "project": "p"}, "--reference-policy needs models"),
    ({"store": "labels.db"}, "--store and --project belong together"),
    ({"samples": "a.csv"}, "--samples has texts and prompts of its own"),
    ({"against": "dpo"}, "--against is 'dpo'"),
    ({"baseline": ("lead-3",), "against": "lead-3", "tax": ("piqa",)}, "only a model has an alignment tax"),
    ({"baseline": ("lead-4",)}, "no baseline 'lead-4'"),
    ({"per_prompt": 0}, "--per-prompt is 0"),
    ({"per_prompt": 2}, "all answers to a prompt are the same"),
    ({"temperature": -1.0}, "--temperature is -1.0"),
    ({"split": "valid"}, "no row of split 'valid'"),
    ({"response_tokens": 63}, "No prompt was answered by all policies"),
    ({"judge": (f"{__name__}:broken",)}, "as nan"),
    ({"response_tokens": None}, "does not say how long a response may be"),
])  # fmt: skip
def test_what_cannot_be_is_named(folders, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        policies_command(settings(folders, tmp_path / "out", **changes))
