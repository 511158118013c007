"""Rollouts: the trainer's probabilities, samples that depend on their number alone, and who writes where."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rein.errors import UserError
from rein.models.generate import draw, generate
from rein.models.gpt import GPT, GPTConfig
from rein.models.places import Places
from rein.models.rollout import rollouts
from rein.models.rows import lay_out, logprobs, states

KINDS = {
    "gpt1": {"norm": "post", "initialisation": "flat"},
    "gpt2": {},
    "gpt3": {"attention": "banded", "band": 5},
}


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return made(**KINDS[request.param])


def made(**changes):
    model = GPT(GPTConfig(31, 48, 24, 3, 3, **changes)).initialise(0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return model


EOT = 0  # these models say it often: with a probability of 8%
QUERIES = [[1, 2, 3, 4, 5, 6, 7], [9], [4, 4], [8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3], [5, 5, 5], [9, 9, 9, 9]]


def trainer(model, found, temperature=1.0):
    """Log-probabilities and entropies by a pass over the whole sequences."""
    rows = lay_out(found.completions)
    with torch.no_grad():
        x_ND, wte_VD = states(model, rows)
        logits = (x_ND[rows.at_M] @ wte_VD.t()) / temperature
        entropies = torch.distributions.Categorical(logits=logits).entropy()
        return logprobs(model, rows, temperature=temperature), entropies


# ------------------------------------------------------------------------------------- the trainer's numbers


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("slots", [1, 7, 64])
def test_the_samplers_numbers_are_the_trainers(model, temperature, slots):
    found = rollouts(
        model, QUERIES, samples=3, max_new_tokens=24, temperature=temperature, seed=1, eot_id=EOT, slots=slots
    )
    lengths = [len(each.response) for each in found.completions]
    assert min(lengths) < 5
    assert max(lengths) == 24
    expected, entropies = trainer(model, found, temperature)
    assert found.logprobs_M.dtype == found.entropies_M.dtype == torch.float32
    torch.testing.assert_close(found.logprobs_M, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.entropies_M, entropies, rtol=0, atol=1e-5)


def test_what_top_k_and_top_p_leave_is_what_the_probabilities_are_of(model):
    free = rollouts(model, QUERIES, max_new_tokens=8, seed=2, eot_id=None)
    for options in ({"top_k": 4}, {"top_p": 0.7}, {"top_k": 9, "top_p": 0.6}):
        found = rollouts(model, QUERIES, max_new_tokens=8, seed=2, eot_id=None, **options)
        rows = lay_out(found.completions)
        with torch.no_grad():
            x_ND, wte_VD = states(model, rows)
            log_p_MV = torch.log_softmax(x_ND[rows.at_M] @ wte_VD.t(), -1)
        ordered_MV, ids_MV = log_p_MV.sort(descending=True)
        kept_MV = torch.arange(31).expand_as(ids_MV) < options.get("top_k", 31)
        p_MV = torch.where(kept_MV, ordered_MV, -torch.inf).softmax(-1)
        kept_MV = kept_MV & (p_MV.cumsum(-1) - p_MV < options.get("top_p", 1.0))
        log_p_MV = torch.where(kept_MV, ordered_MV, -torch.inf).log_softmax(-1)
        expected = log_p_MV[ids_MV == rows.targets_M[:, None]]
        torch.testing.assert_close(found.logprobs_M, expected, rtol=0, atol=1e-5)
        entropies = torch.special.entr(log_p_MV.exp()).sum(-1)
        torch.testing.assert_close(found.entropies_M, entropies, rtol=0, atol=1e-5)
        assert found.entropies_M.mean() < free.entropies_M.mean()


def test_the_likeliest_token_is_certain(model):
    found = rollouts(model, QUERIES, max_new_tokens=4, temperature=0, eot_id=None)
    assert not found.logprobs_M.any()
    assert not found.entropies_M.any()
    assert [list(each.response) for each in found.completions] == generate(
        model, QUERIES, max_new_tokens=4, temperature=0
    )


def test_in_bfloat16_they_are_near(model):
    found = rollouts(model, QUERIES, samples=4, max_new_tokens=16, seed=1, eot_id=None, precision="bf16")
    expected, _ = trainer(model, found)
    assert (found.logprobs_M - expected).abs().mean() < 0.05


@pytest.mark.parametrize("layers", [1, 3])
def test_at_the_size_of_real_vocabularies(layers):
    model = GPT(GPTConfig(1000, 40, 32, 2, layers)).initialise(1).eval()  # more than a block, and not whole blocks
    with torch.no_grad():
        model.wte *= 8
    found = rollouts(model, QUERIES, samples=5, max_new_tokens=20, seed=1, eot_id=EOT, slots=8)
    expected, entropies = trainer(model, found)
    torch.testing.assert_close(found.logprobs_M, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.entropies_M, entropies, rtol=0, atol=2e-5)


def test_the_numbers_can_stand_in_a_loss(model):
    found = rollouts(model, QUERIES, max_new_tokens=4, eot_id=None)
    rows = lay_out(found.completions)
    ratio_M = (logprobs(model, rows) - found.logprobs_M).exp()
    (gradient,) = torch.autograd.grad(ratio_M.sum(), [model.wte])
    assert gradient.abs().sum() > 0


# -------------------------------------------------------------------------------------------- independence


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_k": 7}, {"top_p": 0.8}])
def test_a_sample_depends_on_its_number_alone(model, options):
    options = {"max_new_tokens": 20, "seed": 5, "eot_id": EOT, **options}
    numbers = [100 + 7 * n for n in range(18)]
    found = rollouts(model, QUERIES, samples=3, numbers=numbers, **options).completions
    assert {each.query for each in found} == {tuple(query) for query in QUERIES}
    for slots in (1, 3, 5, 64):
        assert rollouts(model, QUERIES, samples=3, numbers=numbers, slots=slots, **options).completions == found
    order = [4, 0, 5, 2, 1, 3]
    shuffled = [numbers[3 * query + sample] for query in order for sample in range(3)]
    again = rollouts(model, [QUERIES[q] for q in order], samples=3, numbers=shuffled, slots=7, **options)
    assert again.completions == [found[3 * query + sample] for query in order for sample in range(3)]
    for n in (0, 4, 17):
        (alone,) = rollouts(model, [QUERIES[n // 3]], numbers=[numbers[n]], **options).completions
        assert alone == found[n]


def test_generate_writes_the_same(model):
    found = rollouts(model, QUERIES, max_new_tokens=20, seed=6, eot_id=EOT)
    answers = generate(model, QUERIES, max_new_tokens=20, seed=6, eot_id=EOT)
    responses = [list(each.response) for each in found.completions]
    assert [ids[:-1] if ids[-1] == EOT else ids for ids in responses] == answers
    assert any(len(ids) < 20 for ids in responses)
    assert all(EOT not in ids[:-1] for ids in responses)


def test_as_many_samples_of_each_query_as_are_asked_for(model):
    counts = [2, 0, 5, 1, 0, 3]
    found = rollouts(model, QUERIES, samples=counts, max_new_tokens=6, seed=1, eot_id=EOT, slots=4).completions
    assert [each.query for each in found] == [tuple(q) for q, n in zip(QUERIES, counts, strict=True) for _ in range(n)]
    several = [(q, n) for q, n in zip(QUERIES, counts, strict=True) if n]
    assert found == rollouts(
        model, [q for q, _ in several], samples=[n for _, n in several], max_new_tokens=6, seed=1, eot_id=EOT
    ).completions  # fmt: skip


# ------------------------------------------------------------------------------------------------- ends


def test_an_end_at_once_and_never(model):
    free = rollouts(model, QUERIES, samples=2, max_new_tokens=12, seed=3, eot_id=None)
    assert {len(each.response) for each in free.completions} == {12}
    first = {each.response[0] for each in free.completions}
    for eot in first:
        found = rollouts(model, QUERIES, samples=2, max_new_tokens=12, seed=3, eot_id=eot, slots=3)
        for before, after in zip(free.completions, found.completions, strict=True):
            ids = before.response
            assert after.response == (ids[: ids.index(eot) + 1] if eot in ids else ids)
        assert (eot,) in {each.response for each in found.completions}


def test_no_end_before_so_many_tokens(model):
    options = {"samples": 8, "max_new_tokens": 12, "seed": 3, "eot_id": EOT}
    some = rollouts(model, QUERIES, min_new_tokens=6, **options)
    lengths = [len(each.response) for each in some.completions]
    assert min(lengths) == 7
    assert max(lengths) == 12
    forbidden = rollouts(model, QUERIES, min_new_tokens=12, **options)
    assert all(len(each.response) == 12 and EOT not in each.response for each in forbidden.completions)
    # Before that, probabilities are of what is left without it.
    rows = lay_out(forbidden.completions)
    with torch.no_grad():
        x_ND, wte_VD = states(model, rows)
        logits = (x_ND[rows.at_M] @ wte_VD.t()).index_fill(1, torch.tensor([EOT]), -torch.inf)
        expected = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(forbidden.logprobs_M, expected.log_prob(rows.targets_M), rtol=0, atol=1e-5)
    entropies = torch.special.entr(expected.probs).sum(-1)
    torch.testing.assert_close(forbidden.entropies_M, entropies, rtol=0, atol=1e-5)


def test_a_context_that_is_just_long_enough(model):
    found = rollouts(model, [[1] * 40, [2]], samples=2, max_new_tokens=8, eot_id=None, slots=2)
    torch.testing.assert_close(found.logprobs_M, trainer(model, found)[0], rtol=0, atol=1e-5)
    assert [len(each) for each in found.completions] == [48, 48, 9, 9]


def test_nothing_asked_for(model):
    nothing = rollouts(model, [], max_new_tokens=5, eot_id=None)
    assert nothing.completions == []
    assert len(nothing.logprobs_M) == 0
    assert [each.response for each in rollouts(model, [[1], [2]], max_new_tokens=0, eot_id=None).completions] == [
        (),
        (),
    ]


# ------------------------------------------------------------------------------------------ what it costs


def spied(monkeypatch):
    """Tokens read in each pass, and every cache that was made."""
    passes, caches = [], []
    passed, made_cache = GPT.states, GPT.cache

    def states_(self, tokens_BT, *args, **kwargs):
        passes.append(tuple(tokens_BT.shape))
        return passed(self, tokens_BT, *args, **kwargs)

    def cache_(self, *args, **kwargs):
        caches.append(made_cache(self, *args, **kwargs))
        return caches[-1]

    monkeypatch.setattr(GPT, "states", states_)
    monkeypatch.setattr(GPT, "cache", cache_)
    return passes, caches


def test_a_query_is_read_once_and_an_ended_response_no_longer(monkeypatch):
    model = made()
    passes, _ = spied(monkeypatch)
    queries = [[n, 1, 2, 3] for n in range(10)]
    found = rollouts(model, queries, samples=6, max_new_tokens=20, seed=1, eot_id=EOT, slots=16)
    assert sum(B * T for B, T in passes if T > 1) == 40
    # A response's last token is never read.
    assert sum(B for B, T in passes if T == 1) == sum(len(each.response) - 1 for each in found.completions)
    assert max(B for B, T in passes if T == 1) <= 16


@pytest.mark.parametrize("samples", [1, 4, 16])
@pytest.mark.parametrize(("query_tokens", "max_new_tokens"), [(30, 6), (6, 30), (2, 44)])
def test_memory_is_bounded_by_slots_times_the_longest(monkeypatch, samples, query_tokens, max_new_tokens):
    model = made()
    _, caches = spied(monkeypatch)
    queries = [[n % 31] * query_tokens for n in range(20)]
    rollouts(model, queries, samples=samples, max_new_tokens=max_new_tokens, eot_id=EOT, slots=8)
    column_bytes = 2 * 3 * 24 * 4  # keys and values, layers, width, float32
    assert 0 < caches[0].nbytes <= 8 * (query_tokens + max_new_tokens) * column_bytes


class Reader:
    """Stands where a model stands: knows what each group holds."""

    def __init__(self, width):
        self.width, self.queries, self.written, self.n_read = width, {}, {}, 0

    def read(self, groups, queries):
        self.n_read += len(queries)
        for group, query in zip(groups, queries, strict=True):
            self.queries[group] = query
            self.drop(group)

    def copy(self, sources, targets, *, written=False):
        assert not set(sources) & set(targets)
        for source, target in zip(sources, targets, strict=True):
            self.queries[target] = self.queries[source]
            self.drop(target)
            for w in range(self.width if written else 0):
                self.written[target * self.width + w] = list(self.written.get(source * self.width + w, []))

    def drop(self, group):
        for w in range(self.width):
            self.written.pop(group * self.width + w, None)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_every_sequence_is_written_once_behind_its_own_query(data):
    samples = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=9).filter(any))
    slots, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    lengths, R = [data.draw(st.integers(1, 9)) for _ in samples], data.draw(st.integers(1, 9))
    width = min(width, slots)
    of_sequence = [query for query, n in enumerate(samples) for _ in range(n)]
    ends = [data.draw(st.integers(1, R)) for _ in of_sequence]
    places = Places(lengths, samples, slots=slots, width=width, R=R)
    reader, done = Reader(width), []
    while places.fill(reader):
        begun, fresh = places.going()
        assert 0 < len(begun) + len(fresh) <= slots
        for place in fresh:
            reader.written[place] = []
        at = np.concatenate([begun, fresh])
        sequences = places.sequence_P[at]
        assert len(set(sequences)) == len(at)
        ended = []
        for place, sequence in zip(at.tolist(), sequences.tolist(), strict=True):
            assert reader.queries[place // width] == of_sequence[sequence]
            assert reader.written[place] == [sequence] * places.index_P[place]
            reader.written[place].append(sequence)
            ended.append(len(reader.written[place]) == ends[sequence])
        done += sequences[ended].tolist()
        places.wrote(at, sequences, np.array(ended))
        assert (places.last_P[at] == sequences).all()
    assert sorted(done) == list(range(len(of_sequence)))
    assert reader.n_read == sum(n > 0 for n in samples)
    assert places.groups * (max(lengths) + width * R) <= slots * (max(lengths) + R)


# ---------------------------------------------------------------------------------------------- drawing


@given(st.integers(1, 700), st.integers(0, 99), st.sampled_from([0.1, 1.0, 9.0]))
@settings(deadline=None, max_examples=60)
def test_what_is_drawn_is_the_inverse_of_the_cumulative_distribution(V, seed, spread):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(spread * rng.standard_normal((5, V))).float()
    u = torch.from_numpy(np.concatenate([[0.0, 1 - 2**-53], rng.random(3)]))
    drawn = draw(logits, u, temperature=1.0)
    p = torch.softmax(logits, -1)
    cumulative = p.double().cumsum(-1)
    at = drawn.ids_B[:, None]
    above = cumulative.gather(1, at)[:, 0] / cumulative[:, -1]
    below = above - p.gather(1, at)[:, 0] / cumulative[:, -1]
    assert (p.gather(1, at) > 0).all()
    assert (below - 1e-6 <= u).all()
    assert (u <= above + 1e-6).all()
    torch.testing.assert_close(drawn.logprobs_B, torch.log_softmax(logits, -1).gather(1, at)[:, 0], rtol=0, atol=1e-5)


def test_top_p_of_a_flat_distribution_looks_beyond_the_likeliest_few():
    logits = 0.01 * torch.randn(4, 3000, generator=torch.Generator().manual_seed(0))
    drawn = draw(logits, torch.tensor([0.0, 0.3, 0.6, 1 - 2**-53]).double(), temperature=1.0, top_p=0.9)
    p = torch.softmax(logits, -1).sort(descending=True)[0].double()
    n_kept = (p.cumsum(-1) - p < 0.9).sum(-1)
    rank = (logits > logits.gather(1, drawn.ids_B[:, None])).sum(-1)
    assert (rank < n_kept).all()
    assert rank[0] == 0
    assert rank[3] >= n_kept[3] - 2
    torch.testing.assert_close(drawn.entropies_B, n_kept.double().log().float(), rtol=0, atol=1e-3)


# ---------------------------------------------------------------------------------------------- failures


def test_no_slots(model):
    with pytest.raises(UserError, match="slots is 0"):
        rollouts(model, QUERIES, max_new_tokens=4, eot_id=None, slots=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queries": [[1], []]}, "no tokens"),
        ({"queries": [[1] * 44]}, "need n_ctx ≥ 49, but this model has n_ctx=48"),
        ({"temperature": -1.0}, "temperature is -1"),
    ],
)
def test_bad_options(model, changes, words):
    with pytest.raises(UserError, match=words):
        rollouts(model, **{"queries": QUERIES, "max_new_tokens": 5, "eot_id": None} | changes)


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.5}])
def test_a_model_that_has_diverged(options):
    model = made()
    with torch.no_grad():
        model.wte[:, 0] = torch.nan
    with pytest.raises(UserError, match="not numbers"):
        rollouts(model, QUERIES, max_new_tokens=3, eot_id=None, **options)


def test_numbers_that_do_not_fit(model):
    with pytest.raises(AssertionError, match="3 numbers for 12 completions"):
        rollouts(model, QUERIES, samples=2, numbers=[1, 2, 3], max_new_tokens=3, eot_id=None)
    with pytest.raises(AssertionError, match="2 numbers of samples for 6 queries"):
        rollouts(model, QUERIES, samples=[2, 3], max_new_tokens=3, eot_id=None)
