"""What a supervised start learns from: which tokens count, what is held out, that pieces and packing change nothing."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.bpe.byte_level import ByteLevelBPE
from rein.errors import UserError
from rein.models.gpt import GPT, GPTConfig
from rein.models.residual_dropout import ResidualDropout
from rein.models.rows import Completion, lay_out
from rein.text.prompts import FORMATS, Query, Unfit, format_of, within
from rein.train.demonstrations import Demonstration, demonstration, groups, packed, pad_note, read
from rein.train.sft import loss_of
from rein.train.sft_config import SFTConfig

BYTES = ByteLevelBPE(())
N_CTX = 64
NOBODY = Query({}, "", None, "", "train", "")


def config(**changes):
    plain = {"checkpoint": Path("gpt"), "data": (Path("rows"),), "out": Path("run"), "format": "plain"}
    return SFTConfig(**(plain | changes)).settled()


def taken(row, format="plain", **changes):
    settings = config(format=format, **changes)
    return demonstration(row, "f:1", settings, within(FORMATS[format], N_CTX), BYTES, n_ctx=N_CTX)


def small(**changes):
    shape = {"n_vocab": BYTES.n_vocab, "n_ctx": N_CTX, "n_embd": 16, "n_head": 2, "n_layer": 2, **changes}
    model = ResidualDropout(GPTConfig(**shape)).initialise(0)
    with torch.no_grad():
        model.wpe.mul_(30)  # positions that matter
    return model.double()


# ------------------------------------------------------------------------------------------- what is learned

ROWS = [
    {"prompt": "one plus one is", "response": " two"},
    {"prompt": "a", "response": " longer answer than its query"},
    {"prompt": "what is said is of no matter", "response": "."},
]


@pytest.mark.parametrize("kind", ["gpt2", "gpt1", "gpt3"])
def test_the_loss_is_the_masked_loss_of_the_whole_text(kind):
    changes = {"gpt2": {}, "gpt1": {"norm": "post"}, "gpt3": {"attention": "banded", "band": 3}}[kind]
    model = small(**changes)
    some = [taken(row) for row in ROWS]
    total = count = 0.0
    for each in some:  # the plain way: every row alone, all logits, targets before the response ignored
        ids = torch.tensor([each.completion.query + each.completion.response])
        targets = ids[0, 1:].clone()
        targets[: len(each.completion.query) - 1] = -100
        total += F.cross_entropy(model(ids)[0, :-1], targets, reduction="sum")
        count += int((targets != -100).sum())
    assert count == sum(each.n_learned for each in some) == sum(len(row["response"]) + 1 for row in ROWS)
    found = loss_of(model, some, "fp32")
    assert torch.allclose(found, total, atol=1e-9)
    grads = [torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for loss in (found, total)]
    assert all(torch.allclose(ours, theirs, atol=1e-9) for ours, theirs in zip(*grads, strict=True))


def test_the_query_does_not_count_whatever_it_is():
    model = small()
    one, other = (taken({"prompt": prompt, "response": " yes"}) for prompt in ("ab", "cd"))
    grad = torch.autograd.grad(loss_of(model, [one], "fp32"), model.wte)[0]
    changed = Demonstration(Completion(other.completion.query, one.completion.response), one.learned, (), NOBODY)
    assert not torch.equal(torch.autograd.grad(loss_of(model, [changed], "fp32"), model.wte)[0], grad)  # it is read
    assert one.n_learned == other.n_learned == len(" yes") + 1  # the end of text is learned


def test_all_tokens_count_where_that_is_asked():
    each = taken(ROWS[0], loss_on="all")
    assert each.n_learned == len(ROWS[0]["prompt"]) + len(ROWS[0]["response"]) + 1  # all but the first token
    plain = taken(ROWS[0])
    assert each.completion.query + each.completion.response == plain.completion.query + plain.completion.response
    assert each.asked == plain.asked == plain.completion.query


TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"},
                     {"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]}  # fmt: skip


def test_of_a_conversation_every_turn_or_the_last_is_learned():
    every = taken(TALK, "chat", turns="all")
    last = taken(TALK, "chat", turns="last")
    assert (every.n_learned, last.n_learned) == (len(" Ho") + 1 + len(" B") + 1, len(" B") + 1)
    assert every.asked == last.asked == last.completion.query
    model = small()
    first = taken({"messages": TALK["messages"][:2]}, "chat")
    whole = loss_of(model, [every], "fp32")
    assert torch.allclose(whole, loss_of(model, [first], "fp32") + loss_of(model, [last], "fp32"), atol=1e-9)


# ----------------------------------------------------------------------------- pieces, packing, order, padding

IDS = st.lists(st.integers(0, BYTES.n_vocab - 1), min_size=1, max_size=20).map(tuple)


@st.composite
def demonstrations(draw):
    query, response = draw(IDS), draw(IDS)
    learned = tuple(draw(st.lists(st.booleans(), min_size=len(response), max_size=len(response))))
    return Demonstration(Completion(query, response), learned, query, NOBODY)


MODEL = small()


@settings(max_examples=20, deadline=None)
@given(some=st.lists(demonstrations(), min_size=1, max_size=8), at_once=st.integers(1, 300), pack=st.booleans(),
       data=st.data())  # fmt: skip
def test_loss_and_gradient_do_not_depend_on_pieces_packing_or_order(some, at_once, pack, data):
    whole = loss_of(MODEL, some, "fp32")
    expected = torch.autograd.grad(whole, list(MODEL.parameters()))
    some = data.draw(st.permutations(some))
    pieces = groups(some, n_ctx=N_CTX, at_once=at_once, pack=pack)
    assert sorted(place for piece in pieces for place in piece) == list(range(len(some)))
    parts = [loss_of(MODEL, [some[place] for place in piece], "fp32", pack=pack) for piece in pieces]
    total = sum(parts)
    found = torch.autograd.grad(total, list(MODEL.parameters()))
    assert torch.allclose(total, whole, atol=1e-8)
    assert all(torch.allclose(ours, theirs, atol=1e-8) for ours, theirs in zip(found, expected, strict=True))


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_rows_are_filled_and_laid_out_as_they_were_planned(lengths):
    filled = packed(lengths, 30)
    assert sorted(place for row in filled for place in row) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in row) <= 30 for row in filled)
    assert len(filled) <= math.ceil(1.7 * sum(lengths) / 30) + 1  # first fit
    laid = lay_out([Completion((0,) * (lengths[place] - 1) or (0,), (1,) * (lengths[place] > 1))
                    for row in filled for place in row], width=30)  # fmt: skip
    assert len(laid.tokens_BT) == len(filled)


def test_residual_dropout_is_on_the_branches_alone():
    model = small(dropout=0.5)
    some = [taken(row) for row in ROWS]
    plain = loss_of(model.eval(), some, "fp32")
    model.train()
    assert torch.equal(loss_of(model, some, "fp32"), plain)  # GPT-2's own dropout is off
    model.set_dropout(0.3)
    model.seed_dropout(1)
    dropped = loss_of(model, some, "fp32")
    assert not torch.equal(dropped, plain)
    assert torch.equal(loss_of(model, some, "fp32"), dropped)
    model.seed_dropout(2)
    assert not torch.equal(loss_of(model, some, "fp32"), dropped)
    assert torch.equal(loss_of(model.eval(), some, "fp32"), plain)
    blocks = GPT(GPTConfig(BYTES.n_vocab, N_CTX, 16, 2, 2, dropout=0.3)).double()
    blocks.load_state_dict(model.state_dict())
    with torch.no_grad():
        for block in (*blocks.h.values(), *model.h.values()):
            for linear in (block.attn.c_proj, block.mlp.c_proj):
                linear.weight.zero_()
                linear.bias.zero_()
    # Without anything on the branches there is nothing to drop, but embeddings are dropped in the other.
    blocks.train().seed_dropout(1)
    model.train()
    assert torch.equal(loss_of(model, some, "fp32"), loss_of(model.eval(), some, "fp32"))
    assert not torch.equal(loss_of(blocks, some, "fp32"), loss_of(model, some, "fp32"))


# ----------------------------------------------------------------------------------------- rows and what is held out


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def many(n, **more):
    return [{"prompt": f"query {place}", "response": f" {place}", **more} for place in range(n)]


def reading(*data, **changes):
    settings = config(data=tuple(data), **changes)
    format = within(format_of(settings.format, query_tokens=settings.query_tokens), N_CTX)
    return read(settings, format, BYTES, n_ctx=N_CTX)


def test_what_is_held_out(tmp_path):
    rows = written(tmp_path / "rows.jsonl", [*many(20), {"prompt": "held", "response": " out", "split": "valid1"}])
    by_split = reading(rows)
    assert (len(by_split.train), [each.query.text for each in by_split.heldout]) == (20, ["held"])
    other = written(
        tmp_path / "other.jsonl", [{"prompt": "else", "response": " x"}, {"prompt": "query 3"} | {"response": " 3"}]
    )
    given_ = reading(rows, heldout=(other,))
    assert [each.query.text for each in given_.heldout] == ["else"]  # query 3 is trained on
    assert "1 left out: held out, but its query is trained on (other.jsonl:2)" in given_.notes
    plain = written(tmp_path / "plain.jsonl", many(200) * 2)
    drawn = reading(plain, heldout_frac=0.25)
    assert 50 < len(drawn.heldout) < 150
    assert not {each.query.text for each in drawn.train} & {each.query.text for each in drawn.heldout}
    assert drawn.sha256() == reading(plain, heldout_frac=0.25).sha256() != reading(plain, heldout_frac=0.2).sha256()


def test_rows_that_do_not_fit_are_counted_and_named(tmp_path):
    rows = written(tmp_path / "rows.jsonl", [
        *many(10), {"prompt": "p" * 70, "response": "r"}, {"prompt": "p"}, {"response": "r"},
        {"prompt": "p", "output": " "},
        {"prompt": "p" * 40, "response": "r" * 40}, {"prompt": "held", "response": "out", "split": "test"},
    ])  # fmt: skip
    notes = reading(rows).notes
    assert notes[0].startswith("10 demonstrations, ")
    assert set(notes[1:]) == {
        "1 left out: the query is too long (rows.jsonl:11)",
        "1 left out: no answer: neither reference, response, completion, output nor summary (rows.jsonl:12)",
        "1 left out: no text prompt (rows.jsonl:13)",
        "1 left out: the response is empty (rows.jsonl:14)",
        f"1 left out: query and response are longer than the context of {N_CTX} (rows.jsonl:15)",
    }


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        ([], {}, "has no rows"),
        ([{"prompt": "p"}], {}, "No demonstration is to train on: 1 left out: no answer"),
        ([{"prompt": "p" * 99, "response": "r"}] * 5, {}, "to train on: 5 left out: the query is too long"),
        (many(3), {"heldout_frac": 0.0}, "No demonstration is held out"),
        (many(3, split="valid"), {}, "No demonstration is to train on: no row is of that split"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_learned_from(tmp_path, rows, changes, words):
    with pytest.raises(UserError, match=words):
        reading(written(tmp_path / "rows.jsonl", rows), **changes)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        reading(tmp_path / "none.jsonl")


def test_instructions_with_several_instances(tmp_path):
    task = {"instruction": "Add.", "instances": [{"input": "1, 2", "output": "3"}, {"input": "", "output": "0"}]}
    held = {"instruction": "Say hi.", "input": "", "output": "hi", "split": "valid"}
    found = reading(written(tmp_path / "tasks.jsonl", [task, held]), format="instruct")
    assert [each.query.text for each in found.train] == ["Add.\n\n1, 2\n\n", "Add.\n\n"]


def test_the_seed_tasks_of_self_instruct(shared_data):
    path = shared_data / "feedback" / "self_instruct_seed_tasks.jsonl"
    if not path.exists():
        pytest.skip("no feedback/self_instruct_seed_tasks.jsonl in ../shared/data")
    settings = config(data=(path,), format="instruct", heldout_frac=0.1)
    found = read(settings, within(FORMATS["instruct"], 2048), BYTES, n_ctx=2048)
    assert len(found.train) + len(found.heldout) > 150
    assert all(each.completion.response[-1] == BYTES.eot_id for each in (*found.train, *found.heldout))


def test_a_response_is_cut_only_where_its_format_says_so():
    with pytest.raises(Unfit, match="too long"):
        taken({"prompt": "p", "response": "r" * 63})
    post = {"subreddit": "s", "title": "t", "post": "p", "summary": "s" * 99}
    format = format_of("tldr", query_tokens=50, response_tokens=14)
    each = demonstration(post, "f:1", config(format="tldr"), format, BYTES, n_ctx=N_CTX)
    assert len(each.completion.response) == 14
    assert each.completion.response[-1] == BYTES.eot_id
    assert len(each.completion.query) == 50


# ------------------------------------------------------------------------------------------- pad and end of text


def folder_saying(tmp_path, name, said):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(json.dumps(said))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tokenizer_config.json", {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}),
        ("special_tokens_map.json", {"pad_token": {"content": "x"}, "eos_token": {"content": "x"}}),
        ("generation_config.json", {"pad_token_id": 50256, "eos_token_id": 50256}),
    ],
)
def test_a_pad_that_is_the_end_of_text_is_said(tmp_path, name, said):
    assert f"{name} declares pad_token" in pad_note(folder_saying(tmp_path, name, said))


def test_another_pad_or_none_is_not(tmp_path):
    assert pad_note(folder_saying(tmp_path, "tokenizer_config.json", {"pad_token": "[PAD]", "eos_token": "x"})) is None
    assert pad_note(folder_saying(tmp_path, "special_tokens_map.json", {"eos_token": "x"})) is None


def test_such_a_pad_is_harmless(tmp_path):
    """Where a pad that is the end of text is masked, a model never learns to stop: here that token counts."""
    each = taken({"prompt": "p", "response": " r"})
    assert each.completion.response[-1] == BYTES.eot_id
    assert each.learned[-1]
    beside = [each, taken({"prompt": "long " * 5, "response": " response" * 3})]  # so that `each` is padded
    model = small()
    alone = [torch.autograd.grad(loss_of(model, [one], "fp32"), model.wte)[0] for one in beside]
    together = torch.autograd.grad(loss_of(model, beside, "fp32"), model.wte)[0]
    assert torch.allclose(together, alone[0] + alone[1], atol=1e-12)
    assert together[BYTES.eot_id].abs().max() > 0
