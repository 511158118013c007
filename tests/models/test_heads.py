"""Heads and losses against a plain re-computation of the released code, written here from its formulas."""

import math

import pytest
import torch
from torch import nn

from rein.config import from_dict
from rein.models import ops
from rein.models.fine_tuned import described, outputs
from rein.models.gpt import GPT, GPTConfig
from rein.models.heads import Answer, FineTuned, Head, dropout_mask, with_special_tokens
from rein.models.inputs import Input, collate
from rein.optim import GPT1Adam, decayed_and_not, gpt1_linear
from rein.text.tasks import TASKS, task_of

V, T, D = 40, 24, 16  # vocabulary without the three tokens
START, DELIMITER, EXTRACT = V, V + 1, V + 2
POST = GPTConfig(V, T, D, 2, 2, norm="post", initialisation="flat", dropout=0.0)


def net(task, *, positions=True, seed=0, config=POST, scale=20.0):
    """A model of large random weights, so that no term of a loss is near its value for weights of 0."""
    model = with_special_tokens(GPT(config).initialise(seed), seed)
    found = FineTuned(model, Answer(task), positions_in_softmax=positions)
    found.head.initialise(seed)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            generator = torch.Generator().manual_seed(hash_of(name) + seed)
            if "ln_" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02 * scale)
    return found


def hash_of(name):
    return sum(ord(character) * (place + 1) for place, character in enumerate(name))


def random_inputs(n, sequences, labels, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def text():
        return torch.randint(1, V, (int(torch.randint(1, 8, (), generator=generator)),), generator=generator).tolist()

    made = []
    for number in range(n):
        rows = tuple((START, *text(), DELIMITER, *text(), EXTRACT) for _ in range(sequences))
        made.append(Input(rows, labels[number % len(labels)], str(number)))
    return made


# --------------------------------------------------- the released code, in float64, in the words of its train.py


def plain_block(x, w, layer, n_head):
    def norm(x, name):
        u = x.mean(-1, keepdim=True)
        s = ((x - u) ** 2).mean(-1, keepdim=True)
        return (x - u) / torch.sqrt(s + 1e-5) * w[f"h.{layer}.{name}.weight"] + w[f"h.{layer}.{name}.bias"]

    def conv1d(x, name):
        return x @ w[f"h.{layer}.{name}.weight"] + w[f"h.{layer}.{name}.bias"]

    n, t, d = x.shape
    q, k, v = (y.view(n, t, n_head, d // n_head).transpose(1, 2) for y in conv1d(x, "attn.c_attn").split(d, -1))
    b = torch.tril(torch.ones(t, t, dtype=x.dtype))
    scores = q @ k.transpose(-1, -2) / math.sqrt(d // n_head) * b + -1e9 * (1 - b)
    a = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, d)
    y = norm(x + conv1d(a, "attn.c_proj"), "ln_1")
    h = conv1d(y, "mlp.c_fc")
    h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    return norm(y + conv1d(h, "mlp.c_proj"), "ln_2")


def plain_losses(w, inputs, form, n_ctx=T, n_layer=2, n_head=2, numeric=None):
    """(clf_losses, lm_losses): tokens, positions and special tokens in one matrix, padding to n_ctx, masks."""
    we = torch.cat([w["wte"], w["wpe"]])
    n_vocab = len(w["wte"])
    rows = [sequence for each in inputs for sequence in each.sequences]
    X = torch.zeros(len(rows), n_ctx, 2, dtype=torch.int64)
    M = torch.zeros(len(rows), n_ctx, dtype=torch.float64)
    X[:, :, 1] = torch.arange(n_vocab, n_vocab + n_ctx)
    for i, row in enumerate(rows):
        X[i, : len(row), 0] = torch.tensor(row)
        M[i, : len(row)] = 1
    h = we[X].sum(2)
    for layer in range(n_layer):
        h = plain_block(h, w, layer, n_head)
    logits = h[:, :-1] @ we.t()
    losses = -logits.log_softmax(-1).gather(-1, X[:, 1:, 0:1]).squeeze(-1)
    lm_losses = (losses * M[:, 1:]).sum(1) / M[:, 1:].sum(1)
    pool = (X[:, :, 0] == EXTRACT).double().argmax(1)
    clf_h = h[torch.arange(len(rows)), pool]
    K = len(inputs[0].sequences)
    if form == "choice":
        clf_logits = (clf_h @ w["clf.weight"] + w["clf.bias"]).view(-1, K)
    else:
        clf_logits = clf_h.view(-1, K, D).sum(1) @ w["clf.weight"] + w["clf.bias"]
    labels = torch.tensor([each.label for each in inputs])
    if numeric:
        return (clf_logits[:, 0] - (labels - numeric[0]) / numeric[1]) ** 2, lm_losses
    return -clf_logits.log_softmax(-1).gather(1, labels.long()[:, None])[:, 0], lm_losses


def weights(found):
    named = {name.removeprefix("model.").replace("head.", "clf."): p for name, p in found.named_parameters()}
    return {name: p.detach().double().requires_grad_() for name, p in named.items()}


CASES = {
    "rte": (1, [0, 1]), "mrpc": (2, [0, 1]), "storycloze": (2, [0, 1]), "race": (4, [0, 3, 2, 1]),
    "mnli": (1, [2, 0, 1]),
}  # fmt: skip


@pytest.mark.parametrize("task", CASES)
def test_l3_and_its_gradient_are_the_released_codes(task):
    count, labels = CASES[task]
    found = net(TASKS[task]).eval()
    inputs = random_inputs(6, count, labels)
    batch = collate(inputs, n_vocab=V)
    task_B, lm_S = found.losses(batch, torch.tensor([float(each.label) for each in inputs]), "fp32", lm=True)
    loss = task_B.mean() + 0.5 * lm_S.mean()
    w = weights(found)
    clf, lm = plain_losses(w, inputs, TASKS[task].form)
    torch.testing.assert_close(task_B.double(), clf, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lm_S.double(), lm, rtol=1e-4, atol=1e-5)
    expected = torch.autograd.grad(clf.mean() + 0.5 * lm.mean(), list(w.values()))
    gradients = torch.autograd.grad(loss, list(found.parameters()))
    for name, ours, theirs in zip(w, gradients, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-3, atol=2e-5 * theirs.abs().max().item() + 1e-7,
                                   msg=lambda text, name=name: f"{name}: {text}")  # fmt: skip


def test_a_score_is_squared_error_of_the_standardised_score():
    answer = Answer(TASKS["stsb"], mean=2.5, scale=1.5)
    found = FineTuned(net(TASKS["stsb"]).model, answer, positions_in_softmax=True)
    found.head.initialise(3)
    inputs = random_inputs(4, 2, [0.0, 5.0, 2.4])
    task_B, _ = found.losses(
        collate(inputs, n_vocab=V), torch.tensor([each.label for each in inputs]), "fp32", lm=False
    )
    expected, _ = plain_losses(weights(found), inputs, "similarity", numeric=(2.5, 1.5))
    torch.testing.assert_close(task_B.double(), expected, rtol=1e-4, atol=1e-5)
    assert answer.predicted(torch.tensor([[0.0], [1.0]])).tolist() == [2.5, 4.0]


def test_updates_are_the_released_optimisers():
    """Three updates: clip, Adam with its own decay, and the schedule whose first rate is 0."""
    found = net(TASKS["mrpc"], scale=5.0).eval()
    inputs = random_inputs(6, 2, [0, 1])
    batch, labels_B = collate(inputs, n_vocab=V), torch.tensor([float(each.label) for each in inputs])
    optimizer = GPT1Adam(decayed_and_not(found), lr=1e-3)
    w = weights(found)
    m = {name: torch.zeros_like(p) for name, p in w.items()}
    v = {name: torch.zeros_like(p) for name, p in w.items()}
    for t in range(3):
        task_B, lm_S = found.losses(batch, labels_B, "fp32", lm=True)
        (task_B.mean() + 0.5 * lm_S.mean()).backward()
        torch.nn.utils.clip_grad_norm_(found.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * gpt1_linear(t / 10, warmup_frac=0.002)
        before = {name: p.detach().clone() for name, p in found.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
        if t == 0:
            assert all(torch.equal(before[name], p) for name, p in found.named_parameters())

        clf, lm = plain_losses(w, inputs, "similarity")
        gradients = torch.autograd.grad(clf.mean() + 0.5 * lm.mean(), list(w.values()))
        norm = math.sqrt(sum((g**2).sum().item() for g in gradients))
        x = t / 10
        schedule = (x / 0.002 if x <= 0.002 else 1) * (1 - x)
        rate = 1e-3 * math.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1)) * schedule
        with torch.no_grad():
            for name, g in zip(w, gradients, strict=True):
                g = g / max(norm, 1.0)
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.999 * v[name] + 0.001 * g * g
                decay = 0.01 if w[name].dim() > 1 else 0.0
                w[name] -= rate * (m[name] / (v[name].sqrt() + 1e-8) + decay * w[name])
    for (name, ours), theirs in zip(found.named_parameters(), w.values(), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=2e-5,
                                   msg=lambda text, name=name: f"{name}: {text}")  # fmt: skip


# --------------------------------------------------------------------------------------- tokens and the softmax


def test_three_tokens_are_added_and_nothing_else_changes():
    model = GPT(POST).initialise(5)
    grown = with_special_tokens(model, seed=1)
    assert grown.config.n_vocab == V + 3
    for name, tensor in grown.state_dict().items():
        assert torch.equal(tensor[:V] if name == "wte" else tensor, model.state_dict()[name])
    wide = with_special_tokens(GPT(GPTConfig(V, 8, 4096, 1, 1)).initialise(0), seed=1)
    assert wide.wte[V:].std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(with_special_tokens(model, seed=2).wte[V:], grown.wte[V:])


@pytest.mark.parametrize(("positions", "width"), [(True, V + 3 + T), (False, V + 3)])
def test_the_softmax_has_tokens_and_positions(positions, width):
    """With an embedding of zeros every output is equally likely: the loss is the logarithm of their number."""
    found = net(TASKS["rte"], positions=positions).eval()
    with torch.no_grad():
        found.model.wte.zero_()
        found.model.wpe.zero_()
    _, lm_S = found.losses(collate(random_inputs(3, 1, [0, 1]), n_vocab=V), torch.zeros(3), "fp32", lm=True)
    torch.testing.assert_close(lm_S, torch.full((3,), math.log(width)))
    assert len(found.softmax_matrix(found.model.wte)) == width


def test_gpt1s_softmax_has_40_993_outputs():
    config = GPTConfig(40478, 512, 8, 1, 1, norm="post", initialisation="flat")
    model = with_special_tokens(GPT(config).initialise(0), seed=42)
    found = FineTuned(model, Answer(TASKS["storycloze"]), positions_in_softmax=True)
    assert len(found.softmax_matrix(model.wte)) == 40_993


def test_positions_in_the_softmax_are_dropped_as_those_added_to_the_tokens():
    """With tokens of 0 the first position's input to the blocks is the dropped position itself."""
    config = GPTConfig(V, T, D, 2, 1, norm="post", initialisation="flat", dropout=0.4)
    found = FineTuned(
        with_special_tokens(GPT(config).initialise(0), 0), Answer(TASKS["rte"]), positions_in_softmax=True
    )
    found.head.initialise(0)
    with torch.no_grad():
        found.model.wte.zero_()
    seen = []
    block = next(module for module in found.modules() if type(module).__name__ == "Block")
    block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    found.train()
    found.model.seed_dropout(7)
    tokens = torch.zeros(1, T, dtype=torch.int64)
    _, wte_VD = found.model.states(tokens)
    dropped = found.softmax_matrix(wte_VD)[V + 3 :]
    torch.testing.assert_close(dropped, seen[0][0])
    assert 0.25 < (dropped == 0).float().mean() < 0.55
    found.model.seed_dropout(8)
    assert not torch.equal(found.softmax_matrix(wte_VD)[V + 3 :], dropped)


def test_gpt2_has_the_plain_softmax_dropout_and_all():
    config = GPTConfig(V, T, D, 2, 2, dropout=0.3)
    found = net(TASKS["rte"], positions=False, config=config).train()
    found.model.seed_dropout(1)
    task_B, lm_S = found.losses(collate(random_inputs(3, 1, [0, 1]), n_vocab=V), torch.zeros(3), "fp32", lm=True)
    (task_B.mean() + lm_S.mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


def test_padding_is_in_no_language_model_loss():
    found = net(TASKS["rte"]).eval()
    inputs = random_inputs(5, 1, [0, 1])
    labels_B = torch.zeros(5)
    together = found.losses(collate(inputs, n_vocab=V), labels_B, "fp32", lm=True)[1]
    alone = [found.losses(collate([each], n_vocab=V), labels_B[:1], "fp32", lm=True)[1] for each in inputs]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------- symmetry


def outputs_of(found, inputs, at_once=10_000):
    return outputs(found, inputs, "fp32", at_once)


def test_similarity_does_not_change_when_the_texts_swap():
    found = net(TASKS["mrpc"])
    inputs = random_inputs(8, 2, [0, 1])
    swapped = [Input(each.sequences[::-1], each.label, each.where) for each in inputs]
    torch.testing.assert_close(outputs_of(found, swapped), outputs_of(found, inputs), rtol=0, atol=1e-5)
    one_order = [Input((each.sequences[0],) * 2, each.label, "") for each in inputs]
    assert (outputs_of(found, one_order) - outputs_of(found, inputs)).abs().max() > 1e-2  # both orders count


@pytest.mark.parametrize("order", [(1, 0, 3, 2), (3, 2, 1, 0), (1, 2, 3, 0)])
def test_choices_permuted_are_outputs_permuted(order):
    found = net(TASKS["race"])
    inputs = random_inputs(5, 4, [0])
    moved = [Input(tuple(each.sequences[k] for k in order), 0, "") for each in inputs]
    torch.testing.assert_close(outputs_of(found, moved), outputs_of(found, inputs)[:, order], rtol=0, atol=1e-5)


def test_examples_may_have_different_numbers_of_choices():
    found = net(task_of("choice", ["c", "a", "b", "l"]))
    inputs = [*random_inputs(2, 2, [1]), *random_inputs(2, 4, [3], seed=1), *random_inputs(1, 3, [0], seed=2)]
    together = outputs_of(found, inputs)
    assert together.shape == (5, 4)
    assert together.isinf().tolist() == [[False] * n + [True] * (4 - n) for n in (2, 2, 4, 4, 3)]
    for row, each in enumerate(inputs):
        n = len(each.sequences)
        torch.testing.assert_close(together[row, :n], outputs_of(found, [each])[0], rtol=0, atol=1e-5)
    assert found.answer.losses(together, torch.tensor([1, 1, 3, 3, 0])).isfinite().all()
    rows = described(together, inputs, found.answer)
    assert [len(row["probabilities"]) for row in rows] == [2, 2, 4, 4, 3]
    assert all(sum(row["probabilities"]) == pytest.approx(1) for row in rows)


@pytest.mark.parametrize("task", ["rte", "mrpc", "race"])
@pytest.mark.parametrize("at_once", [1, 40, 100, 10_000])
def test_a_score_depends_neither_on_padding_nor_on_batch_mates(task, at_once):
    found = net(TASKS[task])
    inputs = random_inputs(9, CASES[task][0], [0, 1])
    alone = torch.cat([outputs_of(found, [each]) for each in inputs])
    torch.testing.assert_close(outputs_of(found, inputs, at_once), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs_of(found, inputs[::-1], at_once), alone.flip(0), rtol=0, atol=1e-5)


# -------------------------------------------------------------------------------------------------- dropout


def test_the_choices_of_an_example_share_their_dropout_and_examples_do_not():
    head = Head(D, 1, choice=True).initialise(0)
    nn.init.ones_(head.weight)
    states_SD = torch.arange(float(D)).expand(6, D)  # sums of whole numbers are the same in any order
    example_S = torch.tensor([0, 0, 0, 1, 1, 1])
    outputs_BK = head(states_SD, example_S, dropout_mask(2, D, 0.5, seed=3))
    assert outputs_BK[0].unique().numel() == 1
    assert outputs_BK[1].unique().numel() == 1
    assert outputs_BK[0, 0] != outputs_BK[1, 0]


def test_both_orders_share_theirs_so_that_the_sum_is_dropped():
    head = Head(D, 3, choice=False).initialise(0)
    first, second = torch.randn(2, 4, D)
    states_SD = torch.stack([first, second], dim=1).flatten(0, 1)
    kept_BD = dropout_mask(4, D, 0.3, seed=1)
    ours = head(states_SD, torch.arange(4).repeat_interleave(2), kept_BD)
    torch.testing.assert_close(ours, ((first + second) * kept_BD) @ head.weight + head.bias)


def test_the_dropout_mask_keeps_the_mean():
    mask = dropout_mask(500, 200, 0.1, seed=0)
    assert mask.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert mask.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(mask, dropout_mask(500, 200, 0.1, seed=0))
    assert dropout_mask(5, 5, 0.0, seed=0) is None


def test_an_answer_survives_json():
    import json
    from dataclasses import asdict

    for task in (*TASKS.values(), task_of("choice", ["c", "a", "b", "l"])):
        answer = Answer(task, mean=2.5, scale=1.25)
        assert from_dict(Answer, json.loads(json.dumps(asdict(answer))), "rein.json") == answer


def test_the_head_is_a_module_whose_bias_begins_at_0():
    head = Head(D, 3, choice=False).initialise(0)
    assert isinstance(head, nn.Module)
    assert not head.bias.any()
    assert Head(4096, 8, choice=False).initialise(0).weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert ops.IGNORED < 0
